"""A wrong configuration is reported with its file, line and key and with what would be right; nothing is guessed."""

import os
import zoneinfo
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from typer.testing import CliRunner

from city.__main__ import app
from city.config import CityConfigError, is_zone, load
from city.pages.login import OperatorsError, add_operator, read_operators

GOOD = """site = "gongdeok"

[mqtt]
host = "127.0.0.1"
port = 1883

[store]
url = "sqlite:///city.db"

[web]
operators_file = "operators.json"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_operator(tmp_path / "operators.json", "kim")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "city.toml"
    path.write_text(text)
    return path


def test_good_configuration_has_absolute_paths(folder: Path) -> None:
    config = load(written(folder, GOOD))
    assert config.store.url == f"sqlite:///{folder}/city.db"
    assert config.web.operators_file == str(folder / "operators.json")
    assert (config.mqtt.protocol, config.web.host, config.web.secure_cookie) == ("auto", "127.0.0.1", False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port = 1883", 'port = "1883"', ":5: mqtt.port: Expected `int`, got `str`; right would be a port"),
        ("port = 1883", "port = 70000", ":5: mqtt.port: Expected `int` <= 65535"),
        ("port = 1883", "prot = 1883", ":5: mqtt.prot: no such key; known here: host, port"),
        ('host = "127.0.0.1"\n', "", ":3: mqtt.host: Object missing required field"),
        ('url = "sqlite:///city.db"', 'url = "city.db"', ":8: store.url: "),
        ("[store]", "[stroe]", ": stroe: no such key"),
        ('"operators.json"', '"nobody.json"', ":11: web.operators_file: no file '"),
        ("[web]", '[web]\ntimezone = "Seoul"', ":11: web.timezone: 'Seoul' is not known here"),
        ("port = 1883", 'port = 1883\ncert_file = "x"', ":6: mqtt.cert_file: stands alone"),
        ('site = "gongdeok"', 'site = "공덕"', ":1: site: "),
        (
            "[web]",
            '[web]\ntimezone = "localtime"',
            ":11: web.timezone: 'localtime' is not known here, or not to browsers",
        ),
        ("[web]", '[web]\ntimezone = "posixrules"', ":11: web.timezone: 'posixrules' is not known"),
        ("[web]", '[web]\ntimezone = "right/Asia/Seoul"', 'right would be timezone = "Asia/Seoul"'),
        ("[web]", '[web]\ntimezone = "posix/Asia/Tokyo"', 'right would be timezone = "Asia/Tokyo"'),
        ("[web]", '[web]\ntimezone = "asia/seoul"', 'right would be timezone = "Asia/Seoul"'),
        ("[web]", '[web]\ntimezone = "Asia"', 'right would be a name of the IANA time zones: timezone = "Asia/Seoul"'),
        ("[web]", '[web]\ntimezone = "../../etc/passwd"', ":11: web.timezone: "),
        ('"127.0.0.1"', '"mqtt://broker.example"', ":4: mqtt.host: 'mqtt://broker.example' is more than the name"),
        ('"127.0.0.1"', '"broker.example:1883"', ":4: mqtt.host: 'broker.example:1883' is more than the name"),
        ('"127.0.0.1"', '"broker.example/mqtt"', ":4: mqtt.host: "),
        ('"127.0.0.1"', '""', ":4: mqtt.host: "),
        ('"127.0.0.1"', '"256.0.0.1"', ":4: mqtt.host: "),
        ('"127.0.0.1"', '"[::1]"', ":4: mqtt.host: "),
        ("[web]", '[web]\nhost = "http://0.0.0.0"', ":11: web.host: 'http://0.0.0.0' is more than the name"),
        ("[web]", '[web]\nhost = ""', ":11: web.host: "),
        ("[web]", '[web]\nproxies = ["nginx"]', ":11: web.proxies: 'nginx' does not appear to be"),
        ("[web]", '[web]\nproxies = ["0.0.0.0/0"]', ":11: web.proxies: 0.0.0.0/0 is every address"),
        ("[web]", "[web]\nmetrics_port = 8080", ":11: web.metrics_port: 8080 is the port of the pages"),
        ('"operators.json"', '"."', "is a folder, not a file; right would be a file made by"),
        ("[web]", "a = " + "[" * 3000 + "]" * 3000 + "\n[web]", "nested too deeply"),
        ("[mqtt]", "[mqtt", "city.toml:3: not TOML"),
        ('host = "127.0.0.1"', "host = broker", "city.toml:4: not TOML"),
        ('site = "gongdeok"', 'site = "gongdeok"\nsite = "other"', "city.toml:2: not TOML"),
        ("[web]", "[web]\nproxies = [3]", ":11: web.proxies: Expected `str`, got `int`; right would be the addresses"),
    ],
)
def test_errors_name_line_key_and_what_is_right(folder: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CityConfigError) as error:
        load(written(folder, GOOD.replace(old, new, 1)))
    assert said in str(error.value)
    assert str(folder / "city.toml") in str(error.value)


def test_every_zone_that_loads_is_one_that_browsers_know() -> None:
    assert all(map(is_zone, ("Asia/Seoul", "UTC", "Etc/GMT-9", "ROK", "America/Argentina/Ushuaia")))
    for name in (
        "localtime",
        "posixrules",
        "Factory",
        "posix/UTC",
        "right/UTC",
        "Asia/Seoul ",
        "KST",
        "",
        "/etc/localtime",
    ):
        assert not is_zone(name)


@pytest.mark.browser
def test_a_browser_knows_every_zone_that_loads(browser: Browser) -> None:
    zones = sorted(zone for zone in zoneinfo.available_timezones() if is_zone(zone))
    page = browser.new_page()
    refused = page.evaluate(
        "zones => zones.filter(zone => {"
        " try { new Intl.DateTimeFormat('en', {timeZone: zone}); return false } catch { return true } })",
        zones,
    )
    page.close()
    assert len(zones) > 400
    assert refused == []


def test_a_byte_order_mark_is_no_fault(folder: Path) -> None:
    assert load(written(folder, "\ufeff" + GOOD)).site == "gongdeok"


def test_short_token_is_refused(folder: Path) -> None:
    (folder / "token").write_text("short\n")
    with pytest.raises(CityConfigError, match=r"web\.token_file: under 32 characters"):
        load(written(folder, GOOD + 'token_file = "token"\n'))
    (folder / "token").write_text("열" * 40 + "\n")
    with pytest.raises(CityConfigError, match="a character that no HTTP header carries"):
        load(written(folder, GOOD + 'token_file = "token"\n'))
    (folder / "token").write_bytes(b"\xff" * 40)
    with pytest.raises(CityConfigError, match="as UTF-8 text"):
        load(written(folder, GOOD + 'token_file = "token"\n'))


def test_check_says_good_or_why_not(folder: Path) -> None:
    good = CliRunner().invoke(app, ["check", str(written(folder, GOOD))])
    assert (good.exit_code, "good. site gongdeok" in good.output) == (0, True)
    bad = CliRunner().invoke(app, ["check", str(written(folder, GOOD + '[map]\nfile = "operators.json"\n'))])
    assert bad.exit_code == 1
    assert "it names no source of the map; right would be" in bad.output


def test_passcode_is_printed_once_and_only_its_hash_is_kept(folder: Path) -> None:
    path = folder / "operators.json"
    output = CliRunner().invoke(app, ["operator", "lee", "--file", str(path)]).output.strip()
    assert len(output) == 23
    assert output not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(read_operators(path)) == {"kim", "lee"}
    if os.geteuid() == 0:
        os.chown(path, 1, 1)
    owner = path.stat().st_uid
    add_operator(path, "park")
    assert path.stat().st_uid == owner, "a passcode that root gives must not lock the city out of the file"
    before = path.read_text()
    with pytest.raises(OperatorsError, match="1-32 of"):
        add_operator(path, "no/such")
    assert path.read_text() == before
