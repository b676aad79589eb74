"""The dispatcher's page and the interface for programs."""
