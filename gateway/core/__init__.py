"""What a frame means: bytes in, effects out. It knows no clock, no disk, no network and no log."""
