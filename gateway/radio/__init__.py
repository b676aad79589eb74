"""The ZigBee coordinator stick, and which readers may join its network."""
