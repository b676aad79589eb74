"""An emulated ZigBee coordinator stick, down to its bytes (EZSP 13 over ASH)."""
