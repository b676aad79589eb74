"""What gate readers of a site will do before anything is mounted: children at its gates, the air, and the real gateway."""
