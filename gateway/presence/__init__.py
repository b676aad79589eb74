"""What a fix means: a tag is at a place, left it, is near a danger area or off its route."""
