"""The outbox: events on disk, from the moment they happen until the city has them."""
