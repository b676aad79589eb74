"""What a fix means: at a place, left it, near a danger, off the agreed route."""
