"""What gate readers of a site will do before anybody climbs: children at its gates, the air, and the real gateway."""
