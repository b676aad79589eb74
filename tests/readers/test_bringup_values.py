"""What lines become which values, and what values become which switches and notes."""

import random
from typing import Any

import pytest

from readers.bringup import FIRST_SAVES, Wishes
from readers.provision import PINS
from readers.transcript import Transcript
from readers.verdict import BLOCK_B, name_of, notes, stack_of, switches_of
from sim.reader.switches import CHOICES, Switches

LINES = (
    b"\r\n@boot=(4, 12, 31000);\r\n@step='probe_parts.names';\r\n@gc.threshold=False;\r\nsomebody else's\r\n"
    b"@done='probe_parts.names';\r\n@step='probe_radio.transmit';\r\n@sent=(30, None);\r\n"
    b"@sent=(5000, ('OSError', 7110));\r\n"
    b"@done='probe_radio.transmit';\r\n@end=True;\r\n"
)


def test_lines_become_values() -> None:
    transcript = Transcript()
    transcript.receive_data(LINES)
    assert transcript.boots == [(4, 12, 31000)]
    assert transcript.ended
    assert transcript.steps == {
        "names": {"gc.threshold": False, "printed": ["somebody else's"]},
        "transmit": {"sent": [(30, None), (5000, ("OSError", 7110))]},
    }


def test_bytes_one_by_one_say_the_same() -> None:
    whole, single = Transcript(), Transcript()
    whole.receive_data(LINES)
    for byte in LINES:
        single.receive_data(bytes([byte]))
    assert single == whole


def test_a_crash_cuts_off_what_follows_and_nothing_before() -> None:
    """A number that lost its last digits would be another number."""
    for cut in range(len(LINES)):
        transcript = Transcript()
        transcript.receive_data(LINES[:cut] + b"\r\n@boot=(5, 0, 1);\r\n@end=False;\r\n")
        assert transcript.ended
        sent = transcript.steps.get("transmit", {}).get("sent", [])
        assert sent == [(30, None), (5000, ("OSError", 7110))][: len(sent)]
        if transcript.running:
            assert transcript.lost_to == 5
            assert transcript.steps[transcript.running]["reset_cause"] == 5


def test_random_bytes_never_break_it() -> None:
    seed = 8
    print("seed", seed)
    rng = random.Random(seed)
    words = [
        b"@boot=1;\n",
        b"@step='x.y';\n",
        b"@step=3;\n",
        b"@done=1;\n",
        b"@a=[[[;\n",
        b"@boot=('x',2,3);\n",
        b"@=1;\n",
    ]
    transcript = Transcript()
    for _ in range(3000):
        transcript.receive_data(rng.choice(words) if rng.random() < 0.5 else rng.randbytes(rng.randrange(60)))
    assert len(transcript.steps.get("y", {}).get("printed", [])) <= 24


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (None, "works"),
        (("OSError", 7019), "ENODEV"),
        (["OSError", 19], "ENODEV"),
        (("OSError", 8042), "EAGAIN"),  # as this module says itself
        (("OSError", 99_999), "OSError 99999"),
        (("OSError",), "OSError"),
        (("ValueError",), "ValueError"),
        (("KeyError", 3), "KeyError"),
    ],
)
def test_an_error_has_the_name_that_the_module_gives_it(problem: Any, name: str) -> None:
    assert name_of(problem, {"errors": {"EAGAIN": 8042, "EIO": None}}) == name


def flash(**told: Any) -> dict[str, Any]:
    usual = {"write": None, "read": None, "sync": None, "replace": None, "replaced": None, "saves": FIRST_SAVES}
    return {"flash": {**usual, "free_before_b": 100_000, "free_after_b": 100_000, **told}}


@pytest.mark.parametrize(
    ("told", "switch"),
    [
        ({}, "works"),
        ({"write": ("OSError", 7028)}, "full"),
        ({"stopped": (7, ("OSError", 7028))}, "full"),
        ({"read": ("OSError", 7005)}, "unreadable"),
        ({"read": ("ValueError",)}, "unreadable"),
        ({"replace": ("OSError", 7017)}, "no_replace"),
        ({"replaced": ("ValueError",)}, "no_replace"),
        ({"sync": ("OSError", 7005)}, "no_sync"),
        ({"free_after_b": 100_000 - FIRST_SAVES * BLOCK_B}, "never_frees"),
        ({"free_after_b": 100_000 - 2 * BLOCK_B}, "works"),
        ({"free_before_b": None}, "works"),
    ],
)
def test_what_flash_does_is_one_switch(told: dict[str, Any], switch: str) -> None:
    assert switches_of(flash(**told), joined=False)["flash"] == switch
    assert switch in CHOICES["flash"]


def test_a_flash_without_replace_or_sync_at_all() -> None:
    told = flash()
    del told["flash"]["replace"]
    assert switches_of(told, joined=False)["flash"] == "no_replace"
    told = flash()
    del told["flash"]["sync"]
    assert switches_of(told, joined=False)["flash"] == "no_sync"


def test_what_was_not_measured_is_no_switch() -> None:
    assert switches_of({}, joined=True) == {}
    few = {"count": {"in_40_ms_40": (50, 50, 25, 0, 1), "seconds": 10}, "queue": {"kept": 20}, "receive": {"kept": 12}}
    assert switches_of(few, joined=True) == {}, "50 advertisements say little, and all 12 frames found room"
    part = {
        "pins": dict.fromkeys(PINS[:3]),
        "scan": {"first": ("OSError", 7019)},
        "cold": {"gap_scan": ("OSError", 7019)},
    }
    assert switches_of(part, joined=False) == {"gap_scan": "ENODEV"}, (
        "without any scan nobody knows what switches it on"
    )


def test_half_of_the_sends_fail() -> None:
    sent = [(30, None), (4800, ("OSError", 7110)), (5200, ("OSError", 7110)), (40, None)]
    told = switches_of({"transmit": {"sent": sent}}, joined=True)
    assert told == {"transmit": "ETIMEDOUT", "transmit_ms": 5000, "transmit_pct": 50}
    assert Switches().but(**told).transmit_ms == 5000


def test_notes_say_what_our_program_cannot_live_with() -> None:
    measured = {
        "boot": {"reset_cause": 4, "ticks_ms": 0, "free_b": 20_000},
        "stack": {"printed": ["stack: 984 out of 1800", "GC: total: 32000"]},
        "runtime": {"mpy": 0x0105},
        "errors": {"EAGAIN": 11},
        "clock": {"ticks_period": 1 << 31},
        "watchdog": {"reset_cause": 6},
        "transmit": {"bytes_66": (9, ("ValueError",))},
        "count": {"in_40_ms_40": (3, 0, 0, 0, 1)},
        "scan": {"error": ("MemoryError",)},
        "pins": {"lost_s": 45},
        "names": {"not_started": True},
    }
    assert stack_of(measured) == (984, 1800)
    text = "\n".join(notes(measured, {"NP": "31", "VR": "1013"}))
    for words in (
        "20000 bytes free", "stack: 1800 bytes", ".mpy of version 5", "EAGAIN is 11", "wrap at 2147483648",
        "cause is 6", "66 bytes do not go out", "too few advertisements", "scan: ended by MemoryError",
        "pins: no line for 45 s", "names: the program did not start", "a frame takes 49 bytes",
        "VR: firmware 1013 is older",
    ):  # fmt: skip
        assert words in text
    assert len(text.splitlines()) == 13


def test_wishes_choose_steps_and_keep_their_order() -> None:
    assert Wishes(only=("wear", "cold", "names")).rounds() == [["names"], ["cold"], ["wear"]]
    assert "wired" not in Wishes().steps()
    assert "wired" in Wishes(lamp="D2").steps()
    assert not {"outage", "receive"} & set(Wishes().steps())
    assert Wishes(only=("outage",)).rounds() == [["outage"]]
