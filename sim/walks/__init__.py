"""Simulated recorded sites with known truth, and faults to put into any recording."""
