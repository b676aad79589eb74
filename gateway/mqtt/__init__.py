"""The link to the city: two MQTT connections, one for each lane."""
