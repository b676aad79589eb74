"""Which alarm a cry belongs to: one table, for tags, bells and buttons, in the gateway and in the city.

The question is asked about one cry and one alarm that it could belong to (the candidate). `TABLE` answers it: the first
row that fits counts, and some row fits every case. A reader has no keys, so it reports whatever could be new here.

    proof    what the keys say about the cry
             now    a key of the zone made it, and nobody heard it before: it is made now
             late   a key made it; it is older, and was heard by its reader while it was new: it comes late
             old    a key made it, but its reader heard it after newer ones: somebody may repeat it
             unread no key can be tried yet: the gateway's clock or its table of ids is not ready
             none   no key of the zone made it
    kin      whether its numbers belong to the candidate's press: same, other; no: there is no candidate
    trust    what is known of the candidate: verified, replayed, unverified
    state    what a person did about the candidate: new (nothing yet), taken (acknowledged), closed
    place    far: heard at the same moment where the candidate's tag cannot be; else here

    new      an alarm of its own; `TRUST` says how much it is trusted
    revise   the candidate's press, with news
    repeat   the candidate's press, and nothing new: it is answered, and moves nothing
"""

from dataclasses import dataclass
from typing import Literal

Proof = Literal["now", "late", "old", "unread", "none"]
Kin = Literal["no", "same", "other"]
Trust = Literal["verified", "replayed", "unverified"]
Attention = Literal["new", "taken", "closed"]
Nearness = Literal["here", "far"]
Verdict = Literal["new", "revise", "repeat"]

PROOFS: tuple[Proof, ...] = ("now", "late", "old", "unread", "none")
KINS: tuple[Kin, ...] = ("no", "same", "other")
TRUSTS: tuple[Trust, ...] = ("verified", "replayed", "unverified")
STATES: tuple[Attention, ...] = ("new", "taken", "closed")
NEARNESSES: tuple[Nearness, ...] = ("here", "far")

ANY = "*"
TABLE: tuple[tuple[str, str, str, str, str, Verdict], ...] = (
    # proof      kin      trust         state        place   verdict
    (ANY,        "no",    ANY,          ANY,         ANY,    "new"),     # nothing that it could belong to
    (ANY,        "other", ANY,          ANY,         ANY,    "new"),     # another press
    # A cry that a key proves. What is proven is never merged into what is not.
    ("now late", "same",  "verified",   ANY,         "far",  "new"),     # a live relay: the same cry at two places
    ("now late", "same",  "verified",   "new taken", "here", "revise"),
    ("now late", "same",  "verified",   "closed",    "here", "repeat"),  # a tag cries on, it cannot know of the closing
    ("now late", "same",  "replayed",   ANY,         "far",  "repeat"),  # the relay goes on
    ("now late", "same",  "replayed",   ANY,         "here", "new"),
    ("now late", "same",  "unverified", "new",       ANY,    "revise"),  # this very cry, before its key was known here
    ("now late", "same",  "unverified", ANY,         ANY,    "new"),     # a person judged it as a stranger's
    # A true cry that somebody may repeat. It moves nothing, and is shown for what it is.
    ("old",      "same",  "replayed",   ANY,         ANY,    "repeat"),
    ("old",      "same",  ANY,          ANY,         ANY,    "new"),
    # A cry that cannot be judged: by its bytes it goes on what was proven before the gateway's restart.
    ("unread",   "same",  "unverified", "new taken", ANY,    "revise"),
    ("unread",   "same",  ANY,          ANY,         ANY,    "repeat"),
    # A cry that nothing proves. It is told once, and belongs to nobody.
    ("none",     "same",  "unverified", "new taken", ANY,    "revise"),
    ("none",     "same",  "unverified", "closed",    ANY,    "repeat"),
    ("none",     "same",  ANY,          ANY,         ANY,    "new"),
)  # fmt: skip

TRUST: dict[tuple[Proof, Nearness], Trust] = {
    ("now", "here"): "verified", ("now", "far"): "replayed",
    ("late", "here"): "verified", ("late", "far"): "replayed",
    ("old", "here"): "replayed", ("old", "far"): "replayed",
    ("unread", "here"): "unverified", ("unread", "far"): "unverified",
    ("none", "here"): "unverified", ("none", "far"): "unverified",
}  # fmt: skip
"""The trust of a new alarm."""


@dataclass(frozen=True, slots=True)
class Case:
    """One cry and one alarm that it could belong to. Without a candidate, trust, state and place do not matter."""

    proof: Proof
    kin: Kin = "no"
    trust: Trust = "verified"
    state: Attention = "new"
    place: Nearness = "here"


def belongs(case: Case) -> Verdict:
    """Return what a cry is to its candidate. Every case has a verdict."""
    for proof, kin, trust, state, place, verdict in TABLE:
        if (
            _fits(proof, case.proof)
            and _fits(kin, case.kin)
            and _fits(trust, case.trust)
            and _fits(state, case.state)
            and _fits(place, case.place)
        ):
            return verdict
    raise AssertionError(f"no row of TABLE fits {case}")


def _fits(cell: str, value: str) -> bool:
    return cell == ANY or value in cell.split()
