"""Events on disk, from the moment they are true until the city has them."""
