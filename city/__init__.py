"""The city server: it stores what gateways report, opens incidents, and shows them to the dispatchers who answer."""
