"""What `ansim-city check` finds: settings that load, and would fail or be unsafe when the city runs."""
