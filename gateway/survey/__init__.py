"""Recorded sites: record a zone, make its walk test, replay it and draw it."""
