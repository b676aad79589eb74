"""An emulated ZigBee coordinator stick, exact to the byte (EZSP 13 over ASH)."""
