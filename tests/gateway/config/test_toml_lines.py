"""The line of every key is found as TOML counts lines, and in linear time."""

from gateway.config.toml_lines import key_lines


def test_lines_are_counted_as_toml_counts_them() -> None:
    text = (
        'a = """\n[not.a.table]\nb = 1\n"""\n'  # 1-4
        "'quoted key' = 1 # \u2028 c = 2\n"  # 5: no line ends at U+2028
        "[ t . 'u' ]\n"  # 6
        "x.y = [\n  { z = 1 }, # ]\n]\n"  # 7-9
        "[[r]]\n[r.s]\nk = 1\n[[ r ]]\nk = 2\r\n"  # 10-14
    )
    assert key_lines(text) == {
        "a": 1, "quoted key": 5, "t.u": 6, "t.u.x.y": 7, "r": 10, "r[0]": 10, "r[0].s": 11, "r[0].s.k": 12,
        "r[1]": 13, "r[1].k": 14,
    }  # fmt: skip


def test_a_long_line_of_blanks_costs_no_time() -> None:
    assert key_lines(" " * 200_000 + "x\n" + "a " * 100_000 + "\nb = 1\n") == {"b": 3}
