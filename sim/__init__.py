"""A simulated school zone round the real programs, and emulators of the hardware at its edges."""
