"""When the wall clock of a box is good: it was set or synchronised, or is trusted, and its date is plausible."""

from gateway.box.clock import ClockWatch, kernel_says_synchronised


def test_a_clock_is_good_once_it_was_set_and_plausible() -> None:
    synchronised = False
    watch = ClockWatch(trusted=False, synchronised=lambda: synchronised)
    late_s = 1_800_000_000.0
    assert watch.read(1000.0, 5.0) == "unsure"
    assert watch.read(1001.0, 6.0) == "unsure"
    assert watch.read(late_s, 7.0) == "good", "somebody set it"
    assert watch.steps == 1
    assert watch.read(1000.0, 8.0) == "unsure", "back in 1970: whoever set it did not know"
    assert watch.read(late_s, 9.0) == "good"
    assert ClockWatch(trusted=True).read(1000.0, 5.0) == "unsure"
    assert ClockWatch(trusted=True).read(late_s, 5.0) == "good"
    watch = ClockWatch(trusted=False, synchronised=lambda: synchronised)
    assert watch.read(late_s, 5.0) == "unsure"
    synchronised = True
    assert watch.read(late_s + 1, 6.0) == "good"
    synchronised = False
    assert watch.read(late_s + 2, 7.0) == "good", "a network that is away for a day leaves the clock right enough"
    assert kernel_says_synchronised() in (True, False)
