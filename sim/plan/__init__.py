"""What the gate readers of a site will do, before they are mounted: children at its gates, the air, and the gateway."""
