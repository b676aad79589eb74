"""`ansim-reader` turns a new module into an enrolled reader, sends only what differs, and verifies all of it."""

import json
import stat

from typer.testing import CliRunner

import readers.__main__ as command
from readers import build as building
from sim.xbee.module import Factory
from tests.readers.bed import EUI64, Bench


def test_a_new_module_becomes_an_enrolled_reader(bench: Bench) -> None:
    result = bench.flash("--name", "pole 17", "--ext-pan-id", "dddddddddddddddd", "--bell", "d4", "--bell", "p1")
    assert result.exit_code == 0, result.output
    files = bench.on_module()
    assert set(files) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}
    assert {content[:4] for name, content in files.items() if name != "config.py"} == {building.MPY_HEADER}
    config = files["config.py"].decode()
    assert "READER = 7\n" in config
    assert 'BELLS = ("D4", "P1",)' in config
    key = bytes.fromhex(bench.key())
    assert 'KEY = b"' + "".join(f"\\x{byte:02x}" for byte in key) + '"' in config
    module = bench.module
    assert module.running, "restarted, and its program is on"
    saved = json.loads((bench.folder / "module" / "settings.json").read_text())
    assert (saved["PS"], saved["AP"], saved["BD"], saved["DC"], saved["NI"]) == (1, 4, 7, 0x21, "ansim-7")
    assert saved["ID"] == 0xDDDDDDDDDDDDDDDD
    row = json.loads((bench.inventory / "readers.json").read_text())["7"]
    assert (row["number"], row["eui64"], row["name"], row["key_file"]) == (7, EUI64, "pole 17", "reader_keys.json")
    assert len(row["install_code"]) == 36
    assert row["module_firmware"] == "1014"
    assert stat.S_IMODE((bench.inventory / "reader_keys.json").stat().st_mode) == 0o600
    steps = [line.split()[0] for line in result.output.splitlines()]
    assert [step for n, step in enumerate(steps) if steps[n - 1 : n] != [step]] == [
        *("probe", "flash", "verify", "join"),
    ]
    assert bench.run("verify").exit_code == 0


def test_no_secret_is_ever_shown(bench: Bench) -> None:
    first = bench.flash()
    shown = first.output + bench.run("verify").output + bench.run("probe").output
    shown += CliRunner().invoke(command.app, ["list", "--inventory", str(bench.inventory)]).output
    (bench.folder / "module" / "flash" / "config.py").write_text("KEY = 0")
    broken = bench.run("verify")
    assert broken.exit_code == 1
    assert "config.py" in broken.output
    shown += broken.output + repr(broken.exception)
    code = json.loads((bench.inventory / "readers.json").read_text())["7"]["install_code"]
    for text in (shown.lower(), bench.log.read_text().lower()):
        assert "probe" in text
        for secret in (bench.key(), code):
            assert secret not in text
            assert "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(secret)) not in text


def test_flashing_again_changes_nothing(flashed: Bench) -> None:
    before, counts = flashed.on_module(), flashed.module.counts.copy()
    inventory = {path.name: path.read_bytes() for path in flashed.inventory.iterdir()}
    again = flashed.run("flash", "--wait", "0")  # a known module needs no number
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.output
    assert flashed.on_module() == before
    assert {path.name: path.read_bytes() for path in flashed.inventory.iterdir()} == inventory
    for what in ("FS PUT", "FS MV", "FS RM", "WR", "boots", "settings changed"):
        assert flashed.module.counts[what] == counts[what], what
    assert flashed.module.running


def test_only_the_file_that_changed_is_sent(flashed: Bench) -> None:
    key, puts = flashed.key(), flashed.module.counts["FS PUT"]
    (flashed.firmware / "app.py").write_text("import config, wire\n")
    result = flashed.flash()
    assert result.exit_code == 0, result.output
    assert flashed.module.counts["FS PUT"] == puts + 1
    assert "sending app.mpy" in result.output
    assert flashed.key() == key
    assert flashed.module.running


def test_a_file_that_would_hide_a_new_one_goes(bench: Bench) -> None:
    flash = bench.folder / "module" / "flash"
    (flash / "APP.py").write_text("old source, imported before app.mpy")
    (flash / "main.py").write_text("old, started before main.mpy")
    (flash / "boot.new").write_text("17, the program's own")
    result = bench.flash()
    assert result.exit_code == 0, result.output
    assert set(bench.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py", "boot.new"}
    (flash / "app.py").write_text("back again")
    differs = bench.run("verify")
    assert differs.exit_code == 1
    assert "app.py hides a file" in differs.output


def test_verify_names_every_difference(flashed: Bench) -> None:
    (flashed.folder / "module" / "flash" / "wire.mpy").unlink()
    flashed.module.settings["NW"] = 0
    result = flashed.run("verify")
    assert result.exit_code == 1
    assert "2 differences" in result.output
    assert "wire.mpy" in result.output
    assert "ATNW is 0, not A" in result.output
    assert flashed.flash().exit_code == 0
    assert flashed.run("verify").exit_code == 0


def test_full_erases_first_and_gives_a_new_key(flashed: Bench) -> None:
    key = flashed.key()
    (flashed.folder / "module" / "flash" / "junk.bin").write_text("x")
    result = flashed.flash("--full")
    assert result.exit_code == 0, result.output
    assert set(flashed.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}
    assert flashed.key() != key, "its boot counter is gone, so frames under the old key would count as stale"
    assert flashed.module.running


def test_a_flash_too_small_is_said_before_anything_is_sent(bench: Bench) -> None:
    bench.new_module(Factory(volume_b=6144))
    result = bench.flash()
    assert result.exit_code == 4
    assert "6144 bytes free" in result.output
    assert bench.module.counts["FS PUT"] == 0


def test_an_earlier_build_can_be_flashed_but_not_one_that_was_changed(bench: Bench) -> None:
    building.build(bench.folder / "one", bench.firmware)
    result = bench.flash("--build", str(bench.folder / "one"))
    assert result.exit_code == 0, result.output
    (bench.folder / "one" / "app.mpy").write_bytes(b"M\x06\x00\x1fother")
    assert bench.flash("--build", str(bench.folder / "one")).exit_code == 1
