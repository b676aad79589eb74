"""Simulated recorded sites with known truth, and faults for any recording."""
