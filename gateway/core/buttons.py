"""What devices that are no readers say on ZigBee's alarm clusters: an alarm of an unknown button, or nothing to tell.

Buttons of other makers are not supported yet. But one that joined, perhaps enrolled where a reader belongs, is told
"success" by any ZigBee stack, and its owner believes in it. So each alarm on these clusters makes an emergency of low
trust. It names the device by the end of its EUI64, and has no place.

    IAS Zone 0x0500  button -> us   00 zone status changed: status u16, ...   0A report of attribute 0002, bitmap16
    IAS ACE  0x0501  button -> us   02 emergency, 03 fire, 04 panic
                     panel  -> us   03 zone status changed: zone u8, status u16, ..   04, 05 panel status: 07 in alarm
    IAS WD   0x0502  panel  -> us   00 start warning: mode in the high half of the first byte, 0 stop

A ZCL frame is control u8 (bits 0-1: 01 of the cluster, 00 general; 2: a maker's u16 follows; 3: from the server; 4: no
default response), sequence u8, command u8, parameters. Integers are little-endian. In a status, bits 0 and 1 are
alarms; all others (tamper, battery, supervision, restore, trouble) are none. Source: ZCL 07-5123, chapter 8.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.core.alarms import Alarm, Alarms
from gateway.core.sightings import WallClock
from gateway.cries import Case, belongs
from gateway.effects import Commit, Effect
from gateway.events import UNKNOWN_BUTTON, Sos

IAS_ZONE, IAS_ACE, IAS_WD = 0x0500, 0x0501, 0x0502
CLUSTERS = (IAS_ZONE, IAS_ACE, IAS_WD)
SAME_S = 60.0
"""A device that says alarm again within this time of its alarm's first report is the same alarm. Longer would swallow a
second cry; shorter would make an incident of each repetition: buttons repeat for up to half a minute."""
DEVICES_MAX = 5
"""Most alarms of buttons within SAME_S. More devices in alarm are added to the newest of these alarms, and counted."""

_CLUSTER_COMMAND, _MAKER, _FROM_SERVER, _NO_RESPONSE = 0x01, 0x04, 0x08, 0x10
_ALARMS = 0x0003
_IN_ALARM = 0x07
_REPORT, _DEFAULT_RESPONSE, _SUCCESS = 0x0A, 0x0B, 0x00
_STATUS_ATTRIBUTE, _BITMAP16 = 0x0002, 0x19
_SIZES = (
    {base + i: i + 1 for base in (0x08, 0x18, 0x20, 0x28) for i in range(8)}
    | {0x10: 1, 0x30: 1, 0x31: 2, 0x38: 2, 0x39: 4, 0x3A: 8}
    | {0xE0: 4, 0xE1: 4, 0xE2: 4, 0xE8: 2, 0xE9: 2, 0xEA: 4, 0xF0: 8, 0xF1: 16}
)
"""Bytes of a ZCL value by its type. A report is read up to the first type that is not here."""

Word = Literal["alarm", "quiet", "malformed"]


@dataclass(frozen=True, slots=True)
class ButtonFrame:
    """One ZCL frame on an alarm cluster, and who sent it."""

    device: str
    """The last 4 hexadecimal digits of its EUI64, or "at NWK" while the EUI64 is not known."""
    reader: int | None
    """The number of the reader that was enrolled under its EUI64."""
    cluster_id: int
    payload: bytes


def read(cluster_id: int, payload: bytes) -> Word:
    """Return whether a ZCL frame on one of CLUSTERS says alarm. Never raise, whatever the bytes are."""
    try:
        command, from_server, of_cluster, body = _parts(payload)
        if of_cluster:
            alarm = _of_cluster(cluster_id, command, body, from_server=from_server)
        else:
            alarm = cluster_id == IAS_ZONE and command == _REPORT and _reported(body)
    except IndexError:
        return "malformed"
    return "alarm" if alarm else "quiet"


def default_response(payload: bytes) -> bytes | None:
    """Return the ZCL frame that says to a device that its frame was successful; None if it wants no such answer."""
    control, body = payload[0], payload[3:] if payload[0] & _MAKER else payload[1:]
    if control & _NO_RESPONSE:
        return None
    maker = payload[1:3] if control & _MAKER else b""
    answer = control & _MAKER | (control & _FROM_SERVER) ^ _FROM_SERVER | _NO_RESPONSE
    return bytes((answer,)) + maker + bytes((body[0], _DEFAULT_RESPONSE, body[1], _SUCCESS))


class Buttons:
    """The alarms of unknown buttons."""

    def __init__(self, alarms: Alarms, wall: WallClock, counts: Counter[str]) -> None:
        self._alarms, self._wall, self._counts = alarms, wall, counts
        self._of: dict[str, Alarm] = {}
        """The alarm of each device within SAME_S. Those that joined another device's alarm are not in it."""
        self._opened: deque[tuple[float, Alarm]] = deque(maxlen=DEVICES_MAX)
        self._sequences: dict[str, int] = {}
        """ZCL sequence of each alarm's newest frame, by the alarm's name."""

    def alarm(self, frame: ButtonFrame, now_s: float) -> Iterator[Effect]:
        """Yield the effects of a frame that says alarm. When they are carried out, the alarm is on disk."""
        self._counts["button_alarms"] += 1
        self._forget(now_s)
        alarm = self._of.get(frame.device)
        if alarm is None or belongs(Case("none", _kin(alarm), "unverified", alarm.state)) == "new":
            alarm = self._new(frame, now_s)
        sequence = frame.payload[3 if frame.payload[0] & _MAKER else 1]
        again = self._sequences.get(alarm.name) == sequence
        self._sequences[alarm.name] = sequence
        alarm.heard_at_s = now_s
        if not alarm.committed:
            alarm.first = alarm.first or self._sos(alarm)
            yield Commit(alarm.first, self._alarms.memory(alarm))
            alarm.committed, alarm.first = True, None
        elif not again:
            self._counts["button_repetitions"] += 1
            alarm.press += 1
            if alarm.press & alarm.press - 1 == 0:  # 2, 4, 8, ..: a flood makes few revisions
                alarm.revision += 1
                yield Commit(self._sos(alarm), self._alarms.memory(alarm))

    def _new(self, frame: ButtonFrame, now_s: float) -> Alarm:
        """Return a new alarm; or, if there were DEVICES_MAX within SAME_S, the newest of them that is not closed."""
        if len(self._opened) == DEVICES_MAX and not self._opened[-1][1].done:
            self._counts["buttons_merged"] += 1
            return self._opened[-1][1]
        alarm = self._alarms.open("sos", b"u" + frame.device.encode(), now_s, now_s)
        alarm.trust, alarm.press = "unverified", 1
        alarm.tag = f"{UNKNOWN_BUTTON} {frame.device}"
        if frame.reader is not None:
            alarm.tag += f", enrolled as reader {frame.reader}"
        self._of[frame.device] = alarm
        self._opened.append((now_s, alarm))
        return alarm

    def _forget(self, now_s: float) -> None:
        while self._opened and now_s - self._opened[0][0] >= SAME_S:
            self._opened.popleft()
        opened = {alarm.name for _, alarm in self._opened}
        self._of = {device: alarm for device, alarm in self._of.items() if alarm.name in opened}
        self._sequences = {name: sequence for name, sequence in self._sequences.items() if name in opened}

    def _sos(self, alarm: Alarm) -> Sos:
        return Sos(
            observed_at=self._alarms.observed_at(alarm),
            clock=self._wall.quality,
            alarm=alarm.name,
            revision=alarm.revision,
            tag=alarm.tag,
            trust="unverified",
            drill=False,
            press=alarm.press,
            battery_mv=0,
            readers=(),
            where=None,
        )


def _kin(alarm: Alarm) -> Literal["same", "other"]:
    return "other" if alarm.done else "same"  # pressed after it was closed: somebody cries again


def _parts(payload: bytes) -> tuple[int, bool, bool, bytes]:
    """Return (command, from server, of the cluster, parameters). Raise IndexError if it is too short."""
    control = payload[0]
    start = 3 if control & _MAKER else 1
    return payload[start + 1], bool(control & _FROM_SERVER), bool(control & _CLUSTER_COMMAND), payload[start + 2 :]


def _of_cluster(cluster_id: int, command: int, body: bytes, *, from_server: bool) -> bool:
    """Return whether a command of a cluster says alarm. Raise IndexError if it is too short."""
    if cluster_id == IAS_ZONE:
        return from_server and command == 0x00 and bool(_u16(body, 0) & _ALARMS)
    if cluster_id == IAS_ACE and from_server:
        if command == 0x03:
            return bool(_u16(body, 1) & _ALARMS)
        return command in (0x04, 0x05) and body[0] == _IN_ALARM
    if cluster_id == IAS_ACE:
        return command in (0x02, 0x03, 0x04)
    return cluster_id == IAS_WD and not from_server and command == 0x00 and body[0] >> 4 != 0


def _reported(body: bytes) -> bool:
    """Return whether a report of attributes has a zone status with an alarm. Raise IndexError if it is too short."""
    at = 0
    while at < len(body):
        attribute, kind = _u16(body, at), body[at + 2]
        at += 3
        if attribute == _STATUS_ATTRIBUTE and kind == _BITMAP16:
            return bool(_u16(body, at) & _ALARMS)
        if kind in (0x41, 0x42):
            at += 1 + body[at] % 0xFF
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            return False
    return False


def _u16(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8
