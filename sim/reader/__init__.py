"""A reader: the real firmware in a real MicroPython process. Stand-ins replace the module's hardware."""
