"""The dispatchers' console, and the HTTP interface for programs."""
