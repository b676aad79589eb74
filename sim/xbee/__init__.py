"""A virtual XBee 3 module on a serial port, to test the flasher."""
