# Bring-up, the steps with radio: Bluetooth scan and beacon, the mesh (see probe.py).
# mypy: allow-untyped-defs, allow-incomplete-defs
import time

import xbee
from digi import ble
from probe import problem, say, tried, waited

_NEAR_DBM = -50  # the phone that lies beside the module; what else advertises in the house is weaker
_BEACON = b"\x02\x01\x06\x03\xff\xff\xff"


def cold(plan) -> None:
    """Does a scan start although nobody called ble.active(True)? Must be the first use of Bluetooth of its boot."""
    say("active", bool(ble.active()))
    try:
        scan = ble.gap_scan(0, interval_us=20000, window_us=5000)
        say("gap_scan", None)
        scan.stop()
    except Exception as error:
        say("gap_scan", problem(error))


def scan(plan) -> None:
    """What the first scan of a boot does, what a second beside it, and what one after it."""
    ble.active(True)
    try:
        first = ble.gap_scan(0, interval_us=20000, window_us=5000)
        say("first", None)
    except Exception as error:
        say("first", problem(error))
        return
    say("second", tried(_started_and_stopped))
    first.stop()
    time.sleep_ms(2000)
    say("stopped", first.stopped())
    say("after_stop", tried(_started_and_stopped))


def _started_and_stopped() -> None:
    _start(20000, 5000).stop()


def _start(interval_us: int, window_us: int) -> "ble._gap_scan":
    return ble.gap_scan(0, interval_us=interval_us, window_us=window_us)


def stop(plan) -> None:
    """How long a stopped scan stands in the way of the next: stop() and at once gap_scan, 100 times."""
    ble.active(True)
    refused = latest_ms = 0
    total = time.ticks_ms()
    scan = _opened(20000, 5000)
    for _ in range(100):
        scan.stop()
        began = time.ticks_ms()
        try:
            scan = _start(20000, 5000)
        except OSError as error:
            if not refused:
                say("raised", problem(error))
            refused += 1
            scan = _opened(20000, 5000)
        latest_ms = max(latest_ms, waited(began))
        if waited(total) > 30000:
            break
    scan.stop()
    say("refused_of_100", refused)
    say("latest_ms", latest_ms)


def _opened(interval_us: int, window_us: int) -> "ble._gap_scan":
    """Return a new scan, as soon as the module gives one: 10 s at most. What ran before is no longer of use."""
    began = time.ticks_ms()
    while True:
        try:
            return _start(interval_us, window_us)
        except OSError:
            if waited(began) > 10000:
                raise
            time.sleep_ms(1)


def count(plan) -> None:
    """Advertisements in plan.SECONDS at 25 % of the time (two ways), at 43 and 100 %, and beside the own beacon."""
    ble.active(True)
    for key, interval_us, window_us, beacon in (
        ("in_40_ms_10", 40000, 10000, False),
        ("in_20_ms_5", 20000, 5000, False),
        ("in_16_ms_7", 16000, 7000, False),
        ("in_40_ms_40", 40000, 40000, False),
        ("in_20_ms_5_beacon", 20000, 5000, True),
    ):
        if beacon:
            say("gap_advertise", tried(ble.gap_advertise, 100000, _BEACON))
        scan = _opened(interval_us, window_us)
        say(key, _heard(scan, plan.SECONDS * 1000))
        scan.stop()
    say("gap_advertise_stop", tried(ble.gap_advertise, None))


def _heard(scan: "ble._gap_scan", span_ms: int) -> "tuple[int, ...]":
    """Return advertisements, those near, without payload, without address, whether any() ever was False."""
    heard = near = payload_none = address_none = idle = 0
    began = time.ticks_ms()
    while waited(began) < span_ms:
        for _ in range(24):
            if not scan.any():
                idle = 1
                break
            for found in scan:
                heard += 1
                near += found["rssi"] > _NEAR_DBM
                payload_none += found["payload"] is None
                address_none += found["address"] is None
                break
        time.sleep_ms(20)
    return heard, near, payload_none, address_none, idle


def queue(plan) -> None:
    """How many advertisements the module keeps for a program that does not look for 4 s."""
    ble.active(True)
    scan = _opened(40000, 40000)
    time.sleep_ms(4000)
    kept = 0
    while kept < 400 and scan.any():
        for _ in scan:
            kept += 1
            break
    say("kept", kept)
    scan.stop()


def transmit(plan) -> None:
    """What a send to the coordinator takes and raises; then one of 66 bytes, and if wanted one of 67."""
    for _ in range(plan.TRANSMITS):
        say("sent", _sent(20))
        time.sleep_ms(200)
    say("bytes_66", _sent(66))
    if plan.LONG:
        say("bytes_67", _sent(67))


def _sent(size: int) -> "tuple[int, object]":
    began = time.ticks_ms()
    why = tried(_send, b"ansim bring-up " + b"." * (size - 15))
    return waited(began), why


def _send(payload: bytes) -> None:
    xbee.transmit(
        xbee.ADDR_COORDINATOR,
        payload,
        source_ep=xbee.ENDPOINT_DIGI_DATA,
        dest_ep=xbee.ENDPOINT_DIGI_DATA,
        cluster=xbee.CLUSTER_DIGI_SERIAL_DATA,
        profile=xbee.PROFILE_DIGI_XBEE,
    )


def outage(plan) -> None:
    """The same 20 times while the stick is unplugged."""
    for _ in range(20):
        say("sent", _sent(20))
        time.sleep_ms(200)


def duty(plan) -> None:
    """What 20 sends take while the module scans: at no time, at 25, 43, 50 (two ways) and 100 % of the time."""
    ble.active(True)
    for key, interval_us, window_us in (
        ("in_20_ms_0", 0, 0),
        ("in_20_ms_5", 20000, 5000),
        ("in_16_ms_7", 16000, 7000),
        ("in_10_ms_5", 10000, 5000),
        ("in_20_ms_10", 20000, 10000),
        ("in_20_ms_20", 20000, 20000),
    ):
        scan = _opened(interval_us, window_us) if window_us else None
        failed = slowest_ms = total_ms = 0
        for _ in range(20):
            took_ms, why = _sent(20)
            failed += why is not None
            slowest_ms = max(slowest_ms, took_ms)
            total_ms += took_ms
            time.sleep_ms(101)
        if scan:
            scan.stop()
        say(key, (failed, total_ms // 20, slowest_ms))


def receive(plan) -> None:
    """How many frames the module keeps for a program that does not look for 15 s. Somebody sends 12 meanwhile."""
    while xbee.receive():
        pass
    say("asked", tried(_send, b"ansim bring-up: send 12 frames"))
    say("send_now_s", 15)
    time.sleep_ms(15000)
    kept = 0
    while kept < 100 and xbee.receive():
        kept += 1
    say("kept", kept)
