"""A reader: the real firmware in a real MicroPython process, on stand-ins for the module's hardware."""
