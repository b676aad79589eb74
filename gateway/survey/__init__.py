"""Recorded sites: record a zone, walk-test it, replay it, and draw it."""
