"""The host's side of a reader: the wire it speaks, what it is set to, and how it is flashed."""
