"""One run of the whole chain: broker, gateway and city round a simulated zone, measured and judged."""
