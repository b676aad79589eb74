"""The life of a gateway box: its loops, its clock, its figures, and the runner that carries out what the core asks."""
