import _host  # the stand-in of the module's `machine`: pins and the watchdog

HARD_RESET = 3
PWRON_RESET = 4
SOFT_RESET = 6
BROWNOUT_RESET = 11


def reset_cause():
    _host.step()
    return _host.out[3]


def reset():
    _host.ask(90, 3)  # Z: never answered


class Pin:
    IN = 0
    OUT = 1
    PULL_UP = 1

    def __init__(self, a, mode=-1, pull=-1, *, value=None):
        _host.ask(73, 0, a)  # I
        _host.check()
        self.port = int(a[1:]) + (16 if a[0] == "P" else 0)  # D1..D12 are 1..12, P0..P2 are 16..18
        if value is not None:
            self.value(value)

    def value(self, a=None):
        _host.step()
        if a is None:
            _host.out[2] |= 2
            return _host.state[8 + (self.port >> 3)] >> (self.port & 7) & 1
        _host.tell(80, self.port << 1 | a)  # P


class WDT:
    def __init__(self, a=0, timeout=60000, response=SOFT_RESET):
        _host.tell(87, timeout << 1 | (response == HARD_RESET))  # W

    def feed(self):
        _host.step()
        _host.out[2] |= 1
