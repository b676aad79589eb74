import _host

HARD_RESET = 3
PWRON_RESET = 4
WDT_RESET = 5
SOFT_RESET = 6


def reset_cause():
    return _host.out[3]


def reset():
    _host.ask(90, 3)  # Z: never answered


def _index(name):  # D0..D12 are 0..12, P0..P2 are 16..18
    return int(name[1:]) + (16 if name[0] == "P" else 0)


class Pin:
    IN = 0
    OUT = 1
    PULL_UP = 1

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._pin = _index(id)
        if value is not None:
            self.value(value)

    def value(self, value=None):
        if value is None:
            return _host.state[8 + (self._pin >> 3)] >> (self._pin & 7) & 1
        _host.tell(80, self._pin << 1 | value)  # P


class WDT:
    def __init__(self, id=0, timeout=60000, response=SOFT_RESET):
        _host.tell(87, timeout << 1 | (response == HARD_RESET))  # W

    def feed(self):
        _host.out[2] = 1
