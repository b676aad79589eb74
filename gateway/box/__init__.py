"""The gateway process on its box: loops, clock, metrics, and the runner that carries out what the core asks."""
