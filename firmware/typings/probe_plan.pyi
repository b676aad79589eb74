# Written by readers/bringup.py for each start of the module. STEPS: "file.function file.function". Pins may be "".
STEPS: str
PINS: str
LAMP: str
BUZZER: str
BELL: str
SECONDS: int
SAVES: int
TRANSMITS: int
LONG: bool
