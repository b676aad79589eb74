"""The table that decides which alarm a cry belongs to, over all its cases, and what must hold whatever it says."""

import itertools

import pytest

from gateway.cries import ANY, KINS, NEARNESSES, PROOFS, STATES, TABLE, TRUST, TRUSTS, Case, belongs

CASES = [Case(*cells) for cells in itertools.product(PROOFS, KINS, TRUSTS, STATES, NEARNESSES)]
COLUMNS = (PROOFS, KINS, TRUSTS, STATES, NEARNESSES)


def rows_of(case: Case) -> list[int]:
    cells = (case.proof, case.kin, case.trust, case.state, case.place)
    return [
        n
        for n, row in enumerate(TABLE)
        if all(cell == ANY or value in cell.split() for cell, value in zip(row[:5], cells, strict=True))
    ]


def test_every_case_has_a_verdict_and_every_row_decides_some_case() -> None:
    assert len(CASES) == 5 * 3 * 3 * 3 * 2
    assert all(rows_of(case) for case in CASES)
    assert {rows_of(case)[0] for case in CASES} == set(range(len(TABLE)))
    assert set(TRUST) == set(itertools.product(PROOFS, NEARNESSES))


def test_the_words_of_the_table_are_words_of_its_columns() -> None:
    for row in TABLE:
        for cell, column in zip(row[:5], COLUMNS, strict=True):
            assert cell == ANY or set(cell.split()) <= set(column), row


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_no_table_may_ever_say(case: Case) -> None:
    """Written down apart from the table: the reasons why people would lose a cry, or believe a false one."""
    verdict = belongs(case)
    proven = case.proof in ("now", "late")
    if case.kin != "same":
        assert verdict == "new", "another press is always told"
    if proven and case.trust != "verified" and verdict != "new":
        own_cry_before_its_key_was_known = case.trust == "unverified" and case.state == "new"
        relay_goes_on = case.trust == "replayed" and case.place == "far"
        assert own_cry_before_its_key_was_known or relay_goes_on, "what is proven is never merged into what is not"
    if verdict != "new" and case.trust == "verified" and case.proof != "unread":
        assert proven, "what is not proven to be new never touches a child's alarm"
        assert case.place == "here"
    if verdict == "revise":
        assert case.state != "closed", "nobody looks at a revision of what is closed"
        assert case.proof != "old", "what may be a repetition moves nothing"
    if case.proof in ("none", "unread"):
        assert TRUST[case.proof, case.place] == "unverified"
    if case.proof == "old" or case.place == "far":
        assert TRUST[case.proof, case.place] != "verified"


def test_a_tag_that_cries_on_makes_one_alarm_and_not_one_a_beacon() -> None:
    for proof, state in itertools.product(("now", "late"), STATES):
        assert belongs(Case(proof, "same", "verified", state)) != "new"
    assert belongs(Case("old", "same", "replayed", "closed")) == "repeat"
    assert belongs(Case("none", "same", "unverified", "closed")) == "repeat"
