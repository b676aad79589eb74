"""The gateway's TOML file and the files it names: read, checked, and every fault named with its line."""
