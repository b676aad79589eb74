"""The host's side of a reader: the wire format, the wanted settings, and how a reader is flashed."""
