"""One run of the whole chain: broker, gateway and city around a simulated zone, measured and judged."""
