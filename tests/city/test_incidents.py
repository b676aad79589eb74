"""Decisions about incidents: pure functions of values; the time is a number."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from city import incidents
from city.incidents import AlarmProgress, Incident, WrongState, decide
from gateway.events import Bell, Danger, Sos, Stage
from tests.city.bed import place, sos

NOW_S = 1_800_000_000.0


def take(
    event: Sos | Bell | Danger, now_s: float = NOW_S, known: Incident | None = None, revision: int = 0, **more: Any
) -> Any:
    alarm = AlarmProgress(
        alarm=event.alarm,
        incident=1,
        gateway="gw1",
        kind="sos",
        revision=revision,
        stage="stored",
        stage_at=now_s,
    )
    return decide(
        event,
        gateway=more.get("gateway", "gw1"),
        queued_at=now_s,
        now_s=now_s,
        known=(known, alarm) if known else None,
        others=more.get("others", ()),
    )


def bell(alarm: str, at_s: float, presses: int = 1) -> Bell:
    return Bell(
        observed_at=datetime.fromtimestamp(at_s, UTC),
        clock="good",
        alarm=alarm,
        revision=0,
        bell="gate",
        reader=8,
        presses=presses,
        where=None,
    )


def danger(revision: int, near: bool) -> Danger:
    return Danger(
        observed_at=datetime.fromtimestamp(NOW_S + revision, UTC),
        clock="good",
        alarm="a1",
        revision=revision,
        tag="t-01",
        area="river",
        near=near,
        probability=0.9,
        where=place(),
    )


def test_each_alarm_opens_one_incident() -> None:
    first = take(sos("a1", at_s=NOW_S))
    assert (first.word, first.incident.state, first.incident.kind) == ("opened", "new", "sos")
    second = take(sos("a2", press=2, at_s=NOW_S), others=[first.incident])
    assert second.word == "opened"  # another press is another alarm


def cried(alarm: str, at_s: float = NOW_S, *, tag: str = "t-01", trust: str = "verified", press: int = 1) -> Sos:
    return msgspec.structs.replace(sos(alarm, tag=tag, press=press, at_s=at_s), trust=trust)


def acknowledged(incident: Incident) -> Incident:
    return incidents.acknowledge(msgspec.structs.replace(incident, number=1), "kim", NOW_S + 10)


def test_what_a_gateway_calls_new_never_joins_what_a_person_acknowledged() -> None:
    """The same tag and press number: its battery was changed. Its gateway knows that it is another press."""
    first = take(cried("gw1-e1-1")).incident
    for other in (first, acknowledged(first)):
        again = take(cried("gw1-e1-2", NOW_S + 400), NOW_S + 400, others=[other])
        assert (again.word, again.incident.state) == ("opened", "new")
    bell_first = take(bell("gw1-e1-3", NOW_S)).incident
    assert take(bell("gw1-e1-4", NOW_S + 60), others=[bell_first]).word == "joined", "nobody has looked yet"
    assert take(bell("gw1-e1-4", NOW_S + 60), others=[acknowledged(bell_first)]).word == "opened"


@pytest.mark.parametrize(("apart_s", "word"), [(0.0, "joined"), (29.0, "joined"), (31.0, "opened"), (900.0, "opened")])
def test_two_zones_that_hear_one_press_make_one_incident_though_it_is_acknowledged(apart_s: float, word: str) -> None:
    taken = acknowledged(take(cried("gw1-e1-1")).incident)
    assert take(cried("gw2-e1-9", NOW_S + apart_s), gateway="gw2", others=[taken]).word == word


@pytest.mark.parametrize(("before", "after"), [("verified", "replayed"), ("replayed", "verified")])
def test_what_is_proven_and_what_somebody_repeats_are_two_incidents(before: str, after: str) -> None:
    first = take(cried("gw1-e1-1", trust=before)).incident
    second = take(cried("gw1-e1-2", NOW_S + 1, trust=after), others=[first])
    third = take(cried("gw2-e1-2", NOW_S + 1, trust=after), gateway="gw2", others=[first])
    assert (second.word, third.word) == ("opened", "opened")
    assert second.incident.trust == after


def test_a_strangers_call_that_is_proven_later_gets_its_name_and_a_person_looks_again() -> None:
    stranger = take(cried("gw1-e1-1", tag="unknown", trust="unverified")).incident
    proof = msgspec.structs.replace(cried("gw1-e1-1"), revision=1)
    untouched = take(proof, known=stranger)
    assert (untouched.word, untouched.incident.subject, untouched.incident.trust) == ("revised", "t-01", "verified")
    judged = acknowledged(stranger)
    for incident in (judged, incidents.close(judged, "kim", NOW_S + 20)):
        decision = take(proof, NOW_S + 30, known=incident)
        found = decision.incident
        assert (decision.word, found.state, found.subject) == ("proven", "new", "t-01")
        assert (found.acknowledged_at, found.acknowledged_by, found.closed_at, found.shown_at) == (None,) * 4


def test_same_press_under_a_second_name_joins_the_open_incident() -> None:
    first = take(sos("gw1-e1-1", at_s=NOW_S)).incident
    again = take(sos("gw1-e2-1", at_s=NOW_S + 5), NOW_S + 5, others=[first], gateway="gw2")
    assert again.word == "joined"
    assert again.incident.alarm == "gw1-e2-1"
    closed = msgspec.structs.replace(first, state="closed")
    assert take(sos("gw1-e2-1", at_s=NOW_S), others=[closed]).word == "opened"  # a tag whose counter started again
    unknown = take(sos("a1", tag="unknown", at_s=NOW_S)).incident
    assert take(sos("a2", tag="unknown", at_s=NOW_S), others=[unknown]).word == "opened"  # two unknown tags are two


@pytest.mark.parametrize(("later_s", "word"), [(0, "joined"), (1200, "joined"), (1201, "opened"), (-1201, "opened")])
def test_bell_joins_for_twenty_minutes_of_its_own_time(later_s: float, word: str) -> None:
    first = take(bell("a1", NOW_S)).incident
    assert take(bell("a2", NOW_S + later_s), others=[first]).word == word


def test_a_bell_is_its_gateways_own() -> None:
    first = take(bell("a1", NOW_S)).incident
    assert take(bell("a2", NOW_S), others=[first], gateway="gw2").word == "opened"


def test_revision_moves_the_place_and_an_older_one_only_adds_readers() -> None:
    first = take(sos("a1", readers=(3,), where=place(126.9, 37.5), at_s=NOW_S)).incident
    better = take(sos("a1", revision=2, readers=(3, 4), where=place(126.8, 37.4), at_s=NOW_S + 2), known=first).incident
    assert better.where == place(126.8, 37.4)
    late = take(sos("a1", revision=1, readers=(5,), where=place(126.7, 37.3), at_s=NOW_S + 1), known=better, revision=2)
    assert late.word == "heard_again"
    assert late.incident.where == place(126.8, 37.4)
    assert late.incident.readers == (3, 4, 5)
    nowhere = take(sos("a1", revision=3, where=None, at_s=NOW_S + 3), known=better, revision=2).incident
    assert nowhere.where == better.where  # no place is no better place


def test_trust_rises_and_a_drill_never_hides_a_real_cry() -> None:
    drill = take(sos("a1", trust="unverified", drill=True, at_s=NOW_S)).incident
    assert (drill.trust, drill.drill) == ("unverified", True)
    real = take(sos("a1", revision=1, trust="verified", drill=False, at_s=NOW_S), known=drill).incident
    assert (real.trust, real.drill) == ("verified", False)
    back = take(sos("a1", revision=2, trust="unverified", drill=True, at_s=NOW_S), known=real, revision=1).incident
    assert (back.trust, back.drill) == ("verified", False)


def test_old_emergency_opens_an_incident_marked_late_unless_the_clock_is_unsure() -> None:
    assert take(sos("a1", at_s=NOW_S - 120)).incident.late_s is None
    assert take(sos("a1", at_s=NOW_S - 10_800)).incident.late_s == 10_800
    unsure = msgspec.structs.replace(sos("a1", at_s=0), clock="unsure")
    assert take(unsure).incident.late_s is None
    assert take(unsure).incident.clock == "unsure"


def test_danger_clears_comes_back_and_never_waits_when_clear() -> None:
    near = take(danger(0, True)).incident
    clear = take(danger(1, False), known=near)
    assert clear.word == "clear_again"
    assert clear.incident.cleared_at == NOW_S + 1
    assert clear.incident.state == "new"  # only a person closes it
    assert not incidents.is_overdue(clear.incident, NOW_S + 1000)
    again = take(danger(2, True), known=clear.incident, revision=1)
    assert again.word == "near_again"
    assert again.incident.cleared_at is None
    overtaken = take(danger(0, True), known=clear.incident, revision=1)
    assert overtaken.incident.cleared_at == NOW_S + 1  # the first event, which arrives last


def test_states_only_rise_and_a_new_one_is_never_closed() -> None:
    new = msgspec.structs.replace(take(sos("a1", at_s=NOW_S)).incident, number=7, overdue=True)
    with pytest.raises(WrongState, match="acknowledge it first"):
        incidents.close(new, "kim", NOW_S)
    taken = incidents.acknowledge(new, "kim", NOW_S + 3)
    assert (taken.state, taken.acknowledged_by, taken.acknowledged_at) == ("acknowledged", "kim", NOW_S + 3)
    assert not taken.overdue
    assert incidents.acknowledge(taken, "lee", NOW_S + 4) is taken
    closed = incidents.close(taken, "lee", NOW_S + 9)
    assert incidents.close(closed, "kim", NOW_S + 10) is closed
    with pytest.raises(WrongState, match="closed by lee"):
        incidents.acknowledge(closed, "kim", NOW_S + 11)


def test_overdue_after_a_minute() -> None:
    new = take(sos("a1", at_s=NOW_S)).incident
    assert not incidents.is_overdue(new, NOW_S + 60)
    assert incidents.is_overdue(new, NOW_S + 60.1)
    assert not incidents.is_overdue(incidents.acknowledge(new, "kim", NOW_S), NOW_S + 100)


def alarm(stage: Stage = "stored", told: Stage | None = None, kind: incidents.IncidentKind = "sos") -> AlarmProgress:
    return AlarmProgress(
        alarm="a1", incident=1, gateway="gw1", kind=kind, revision=0, stage=stage, stage_at=NOW_S, told=told
    )


@pytest.mark.parametrize(
    ("of", "sent_at", "after_s", "due"),
    [
        (alarm(), None, 0, True),
        (alarm(), NOW_S, 1.9, False),
        (alarm(), NOW_S, 2.0, True),
        (alarm(told="received"), NOW_S, 2.0, True),  # an earlier stage on the lamp is not this one
        (alarm(told="stored"), NOW_S, 2.0, False),
        (alarm(told="acknowledged"), NOW_S, 2.0, False),
        (alarm("acknowledged", told="stored"), NOW_S - 1, 0, True),  # a new stage is sent at once
        (alarm(), NOW_S + 700, 729, False),
        (alarm(), NOW_S + 700, 730, True),
        (alarm(), NOW_S + 700, 86_400, False),
        (alarm(kind="danger"), None, 0, False),
    ],
)
def test_notices_repeat_until_a_lamp_says_so(
    of: AlarmProgress, sent_at: float | None, after_s: float, due: bool
) -> None:
    assert incidents.notice_due(of, sent_at, NOW_S + after_s) is due


def test_unreadable_emergencies_of_a_gateway_share_one_open_incident() -> None:
    first = incidents.unreadable(gateway="gw1", detail="x", queued_at=None, now_s=NOW_S, open_=None)
    assert (first.word, first.incident.kind, first.incident.state) == ("opened", "unreadable", "new")
    again = incidents.unreadable(gateway="gw1", detail="y", queued_at=None, now_s=NOW_S + 1, open_=first.incident)
    assert again.word == "joined"
    closed = msgspec.structs.replace(first.incident, state="closed")
    third = incidents.unreadable(gateway="gw1", detail="z", queued_at=None, now_s=NOW_S, open_=closed)
    assert third.word == "opened"


def test_news_of_a_call_that_a_person_has_taken_or_closed_leaves_it_so() -> None:
    """Only a proof that came late makes it new again. Else every new place of the child rings until nobody listens."""
    taken = acknowledged(take(cried("gw1-e1-1")).incident)
    for incident in (taken, incidents.close(taken, "kim", NOW_S + 20)):
        decision = take(msgspec.structs.replace(cried("gw1-e1-1"), revision=1), NOW_S + 30, known=incident)
        found = decision.incident
        assert (decision.word, found.state, found.acknowledged_by) == ("revised", incident.state, "kim")
        assert found.closed_by == incident.closed_by


@pytest.mark.parametrize("apart_s", [3, 29])
def test_a_bell_that_rings_again_soon_after_a_person_took_it_is_told(apart_s: float) -> None:
    """Its gateway knows that it is another press: somebody is still there."""
    taken = acknowledged(take(bell("gw1-e1-3", NOW_S)).incident)
    assert take(bell("gw1-e1-4", NOW_S + apart_s), NOW_S + apart_s, others=[taken]).word == "opened"
    assert take(bell("gw1-e2-1", NOW_S + apart_s), NOW_S + apart_s, others=[taken]).word == "joined", "a lost store"


def test_a_danger_that_a_person_has_taken_is_never_closed_by_the_city() -> None:
    late = take(danger(0, near=True), NOW_S + 1000)
    assert late.incident.late_s is not None
    clear = take(danger(1, near=False), NOW_S + 1010, known=acknowledged(late.incident))
    assert clear.incident.cleared_at is not None
    assert incidents.close_if_over(clear, NOW_S + 1010).state == "acknowledged"
