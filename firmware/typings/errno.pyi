# Digi's numbers are its own (7000 and up): compare with the name.
EAGAIN: int
