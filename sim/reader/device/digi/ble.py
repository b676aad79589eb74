import _host  # the stand-in of Digi's `ble`: scan and beacon


class _gap_scan:
    def any(self):
        _host.step()
        return _host.state[4] != 0

    def stop(self):
        _host.ask(88)  # X

    def stopped(self):
        _host.step()
        return not _host.state[12] & 2

    def __iter__(self):
        return self

    def __next__(self):
        data = _host.ask(65)  # A: address 6 | type (128: no address, 64: no payload) | rssi | payload; it waits for one
        return {
            "address": None if data[6] & 128 else data[:6],
            "addr_type": data[6] & 3,
            "connectable": False,
            "rssi": data[7] - 256 if data[7] > 127 else data[7],
            "payload": None if data[6] & 64 else data[8:],
        }


def active(a=None):
    return bool(_host.ask(69, 2 if a is None else a)[0])  # E


def gap_scan(a=0, interval_us=1280000, window_us=11250):
    if not 2500 <= window_us <= interval_us <= 40959375:
        raise ValueError
    _host.ask(71, interval_us, window_us.to_bytes(4, "little"))  # G
    _host.check()
    return _gap_scan()


def gap_advertise(a, adv_data=None):
    _host.ask(86, (a or 0) << 1 | (adv_data is not None), adv_data or b"")  # V
    _host.check()
