"""An emulated XBee 3 module on a serial port, for the flasher."""
