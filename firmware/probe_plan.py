# Bring-up: what to measure at the next start. readers/bringup.py writes this file anew for each, with these names.
STEPS = ""  # "file.function file.function"
PINS = ""  # names to try
LAMP = BUZZER = BELL = ""  # pins that a person wired; others are never driven
SECONDS = 10  # of each count of advertisements
SAVES = 24
TRANSMITS = 5
LONG = False  # also a frame of 67 bytes, which the mesh cuts into two
