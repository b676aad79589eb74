"""A first fix is at its reader and never fails; two distant readers that both hear a tag loudly are noticed."""

from gateway.fix import Reading, fix_at_reader, too_far_apart, where_of
from gateway.zone import Field
from tests.gateway.core.bed import zone
from tests.gateway.locate.bed_locator import Gateway, loud


def test_the_first_word_is_at_its_reader_and_never_fails() -> None:
    field = Field(zone())
    near, far, mute = (fix_at_reader(field, Reading(4, rssi, 1, 9.0, -50), 10.0) for rssi in (-55, -95, None))
    for fix in (near, far, mute):
        assert fix is not None
        assert (fix.x_m, fix.y_m) == field.readers[4][:2]
    assert near is not None
    assert far is not None
    assert near.radius_50_m < far.radius_50_m <= 60
    assert where_of(field, near).evidence[0].age_s == 1.0
    assert fix_at_reader(field, Reading(77, -60, 1, 9.0, -50), 10.0) is None


def test_a_tag_loud_at_both_ends_of_a_long_street_is_two_tags() -> None:
    field, locator = Field(zone()), Gateway(zone()).locator
    both = locator.once(loud((1, -60), (10, -62)), 1000.0)
    near = locator.once(loud((1, -60), (3, -62)), 1000.0)
    weak = locator.once(loud((1, -60), (10, -90)), 1000.0)
    assert both is not None
    assert near is not None
    assert weak is not None
    assert too_far_apart(field, both) == (1, 10)
    assert too_far_apart(field, near) is None
    assert too_far_apart(field, weak) is None
