"""Reads and checks the gateway's TOML file and the files it names, and reports every fault with its line."""
