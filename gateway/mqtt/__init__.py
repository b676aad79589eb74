"""The way to the city: two MQTT connections, one for each lane."""
