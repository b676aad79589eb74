"""A simulated school zone around the real programs, and emulators of the hardware at its edges."""
