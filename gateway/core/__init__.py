"""The core: it turns frames into effects. It uses no clock, no disk, no network and no log."""
