"""The city: what gateways report is stored, an incident is opened, and an operator answers it."""
