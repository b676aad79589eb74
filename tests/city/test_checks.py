"""`ansim-city check` finds what would fail or be unsafe when the city runs, and says what, where and the next step."""

import contextlib
import datetime
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from city.__main__ import app
from city.checks import store
from city.pages.login import add_operator
from city.store import Store
from tests.city.test_config import GOOD

TOKEN = "x" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_operator(tmp_path / "operators.json", "kim")
    for name, text in (("token", TOKEN), ("password", "secret")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def checked(folder: Path, text: str = GOOD) -> tuple[int, str]:
    path = folder / "city.toml"
    path.write_text(text)
    answer = CliRunner().invoke(app, ["check", str(path)])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.output


def with_(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_good_configuration_is_good_and_nothing_is_made(folder: Path) -> None:
    before = sorted(folder.iterdir())
    code, output = checked(folder, GOOD + 'token_file = "token"\n')
    assert (code, "good. site gongdeok" in output) == (0, True), output
    assert "no gateway is believed until `ansim-city gateway enrol`" in output
    assert sorted(folder.iterdir()) == sorted([*before, folder / "city.toml"])


@pytest.mark.parametrize(
    ("key", "name", "mode"),
    [
        ("web.token_file", "token", 0o644),
        ("web.operators_file", "operators.json", 0o604),
        ("web.operators_file", "operators.json", 0o602),
        ("mqtt.password_file", "password", 0o644),
        ("store.url", "city.db", 0o644),
        ("mqtt.gateway_keys", "gateway_keys/gw1.keys", 0o640),
        ("site", "city.toml", 0o666),
    ],
)
def test_what_everybody_can_read_or_write_is_found(folder: Path, key: str, name: str, mode: int) -> None:
    text = with_("port = 1883", 'username = "city"\npassword_file = "password"') + 'token_file = "token"\n'
    (folder / "gateway_keys").mkdir()
    (folder / "city.toml").write_text(text)
    for each in ("city.db", "gateway_keys/gw1.keys"):
        (folder / each).touch(0o600)
    (folder / "gateway_keys/gw1.keys").write_text(f"1 {'ab' * 32}\n")
    assert checked(folder, text)[0] == 0
    (folder / name).chmod(mode)
    code, output = checked(folder, text)
    assert code == 1
    assert f": {key}: " in output
    assert output.count(f"{folder / name} (mode {mode:04o}); next: chmod 6") == 1
    assert len(output.splitlines()) == 2, "said once, and counted"


def test_a_configuration_with_the_password_of_the_store_is_a_secret(folder: Path) -> None:
    url = 'url = "postgresql+psycopg://city:secret@127.0.0.1:1/city"'
    (folder / "city.toml").touch(0o644)
    _, output = checked(folder, with_('url = "sqlite:///city.db"', url))
    assert "which holds the password of the store" in output
    (folder / "city.toml").chmod(0o600)
    code, output = checked(folder, with_('url = "sqlite:///city.db"', url))
    assert code == 1, "nobody listens at port 1"
    assert "which holds the password" not in output
    assert "secret" not in output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"127.0.0.1"', '"broker.example"', ":4: mqtt.host: broker.example is another machine"),
        ('"127.0.0.1"', '"192.0.2.1"', ":4: mqtt.host: 192.0.2.1 is another machine"),
        ("port = 1883", "port = 8883", ":5: mqtt.port: port 8883 is usually for TLS"),
        ("port = 1883", 'password_file = "password"', ":5: mqtt.password_file: is never sent without a username"),
        ("[web]", '[web]\nhost = "0.0.0.0"', ":11: web.host: 0.0.0.0 serves other machines without https"),
        ("[web]", '[web]\nhost = "::"', ":11: web.host: :: serves other machines without https"),
        ("[web]", '[web]\nhost = "192.0.2.9"\nsecure_cookie = true', ":11: web.host: 192.0.2.9 is no address of this"),
        ("[web]", '[web]\nproxies = ["127.0.0.1"]', ":11: web.proxies: a proxy is in front"),
        ("[web]", "[web]\nsecure_cookie = true", ":11: web.secure_cookie: https comes from a proxy, and none is named"),
        ("port = 1883", 'gateway_keys = "elsewhere"', ":5: mqtt.gateway_keys: no folder"),
        ("city.db", "none/city.db", ":8: store.url: no folder"),
        ("city.db", ":memory:", ":8: store.url: a store in memory forgets"),
        ("sqlite:///city.db", "postgresql+psycopg://kim@:x/y", ":8: store.url: "),
    ],
)
def test_what_would_be_unsafe_or_fail_is_found(folder: Path, old: str, new: str, said: str) -> None:
    code, output = checked(folder, with_(old, new))
    assert code == 1
    assert said in output
    assert "next: " in output or "; " in output.partition(said)[2]


def test_everything_is_found_at_once(folder: Path) -> None:
    (folder / "operators.json").write_text("{}")
    (folder / "operators.json").chmod(0o644)
    text = with_('"127.0.0.1"', '"broker.example"').replace("city.db", "none/city.db") + 'host = "0.0.0.0"\n'
    output = checked(folder, text)[1]
    for said in ("another machine", "no folder", "without https", "there is no operator", "everybody on this machine"):
        assert said in output
    *_, last = output.strip().splitlines()
    assert len(output.strip().splitlines()) == 6
    assert last == f"5 faults; next: mend what is listed, then run `ansim-city check {folder / 'city.toml'}` again"


FAULTY = """site = "school 1"
sight = "gongdeok"

[mqtt]
host = "mqtts://broker.example:8883"
port = "8883"
ca_file = "ca.pem"
cert_file = "certs"
key_file = "ca.key"
protocol = "4"

[store]
url = "sqlite:///none/city.db"
positions_days = 0

[web]
host = "192.0.2.9"
timezone = "Seoul"
token_file = "token"
metrics_port = 8080

[map]
file = "operators.json"

[maps]
"""


def test_faults_of_every_kind_are_told_in_one_run(folder: Path) -> None:
    """What a setting means, what a file holds and what the machine has are looked at in the same run."""
    (folder / "certs").mkdir()
    (folder / "token").chmod(0o644)
    (folder / "token").write_text("short")
    code, output = checked(folder, FAULTY)
    assert code == 1
    for line, key, words in (
        (1, "site", "right would be an id of 1-32"),
        (2, "sight", "no such key; known here: site, mqtt"),
        (5, "mqtt.host", 'write host = "broker.example" and port = 8883'),
        (6, "mqtt.port", "right would be a port"),
        (7, "mqtt.ca_file", "no file"),
        (8, "mqtt.cert_file", "is a folder, not a file"),
        (9, "mqtt.key_file", "no file"),
        (10, "mqtt.protocol", "auto tries 5 first"),
        (13, "store.url", "no folder"),
        (14, "store.positions_days", "right would be days"),
        (16, "web.operators_file", "missing required field"),
        (17, "web.host", "serves other machines without https"),
        (18, "web.timezone", 'right would be timezone = "Asia/Seoul"'),
        (19, "web.token_file", "under 32 characters"),
        (20, "web.metrics_port", "is the port of the pages"),
        (25, "maps", "no such key"),
    ):
        (found,) = [one for one in output.splitlines() if f"city.toml:{line}: {key}: " in one and words in one]
        assert ";" in found, "each has a next step or what would be right"
    assert "it names no source of the map" in output
    lines = [int(number) for number in re.findall(r"city\.toml:(\d+): ", output)]
    assert lines == sorted(lines), "in the order of the file"
    assert "Traceback" not in output


@pytest.mark.parametrize("port", ["", "port = 1883"])
def test_tls_on_the_port_without_tls_is_found(folder: Path, port: str) -> None:
    certificate(folder, "ca", 30)
    code, output = checked(folder, with_("port = 1883", f'{port}\nca_file = "ca.pem"'))
    assert code == 1
    assert "mqtt.port: TLS (ca_file) on port 1883" in output
    assert "is port = 8883 meant?" in output


def test_keys_that_the_user_of_the_service_cannot_see_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root made the folder. Without this, `check` said "0 gateways enrolled", and every cry was refused."""
    (folder / "gateway_keys").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "gateway_keys" and may(path, mode))
    code, output = checked(folder)
    assert (code, f"this user cannot look into {folder / 'gateway_keys'}: no gateway is believed; next:" in output) == (
        1,
        True,
    )


def test_text_of_another_system_is_read_or_named(folder: Path) -> None:
    def of(data: bytes) -> tuple[int, str]:
        (folder / "city.toml").write_bytes(data)
        answer = CliRunner().invoke(app, ["check", str(folder / "city.toml")])
        return answer.exit_code, answer.output

    assert of(GOOD.replace("\n", "\r\n").encode())[0] == 0
    assert of(b"\xef\xbb\xbf" + GOOD.encode())[0] == 0
    for data in (GOOD.encode("utf-16"), b"\xfe\xff" + GOOD.encode("utf-16-be")):
        code, output = of(data)
        assert code == 1
        assert "city.toml:1: cannot be read: begins with a byte-order mark (BOM) of UTF-16" in output
        assert "save it as UTF-8" in output
    code, output = of(GOOD.replace("gongdeok", "공덕").encode("euc-kr"))
    assert (code, "city.toml:1: cannot be read: not UTF-8 text; save it as UTF-8" in output) == (1, True)
    (folder / "city.toml").unlink()
    (folder / "city.toml").mkdir()
    answer = CliRunner().invoke(app, ["check", str(folder / "city.toml")])
    assert (answer.exit_code, "is a folder, not a file" in answer.output) == (1, True)


def test_a_store_of_another_program_is_refused_by_check_and_by_run(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "city.db")) as db, db:
        db.execute("CREATE TABLE photos (id INTEGER)")
    (folder / "city.db").chmod(0o600)
    before = (folder / "city.db").read_bytes()
    assert "holds tables of another program" in checked(folder)[1]
    run = subprocess.run(
        [sys.executable, "-m", "city", "run", str(folder / "city.toml")], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert "holds tables of another program" in run.stderr
    assert (folder / "city.db").read_bytes() == before


def made_store(path: Path) -> None:
    Store(f"sqlite:///{path}").close()


def test_a_good_store_is_good_also_while_a_city_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "city.db"
    opened = Store(f"sqlite:///{path}")
    assert store.problem_of(f"sqlite:///{path}") is None
    opened.close()
    assert store.problem_of(f"sqlite:///{path}") is None


@pytest.mark.parametrize("at", [0, 100, 4096, 8192])
def test_a_damaged_store_is_found(tmp_path: Path, at: int) -> None:
    path = tmp_path / "city.db"
    made_store(path)
    assert not Path(f"{path}-wal").exists()
    data = bytearray(path.read_bytes())
    data[at : at + 64] = b"\xa5" * 64
    path.write_bytes(data)
    problem = store.problem_of(f"sqlite:///{path}")
    assert problem is not None
    assert str(path) in problem


def test_a_store_of_another_version_or_a_folder_is_found(tmp_path: Path) -> None:
    path = tmp_path / "city.db"
    made_store(path)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE schema_version SET version = 99")
    assert "has schema [99]" in (store.problem_of(f"sqlite:///{path}") or "")
    (tmp_path / "folder.db").mkdir()
    assert "is no file" in (store.problem_of(f"sqlite:///{tmp_path / 'folder.db'}") or "")


def certificate(folder: Path, name: str, days: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    (folder / f"{name}.key").chmod(0o600)


def test_certificates_that_the_broker_or_the_city_would_refuse_are_found(folder: Path) -> None:
    certificate(folder, "ca", 30)
    certificate(folder, "old", -1)
    (folder / "empty").touch(0o600)
    remote = with_('"127.0.0.1"', '"broker.example"')

    def tls(lines: str) -> str:
        return checked(folder, remote.replace("port = 1883", f"port = 8883\n{lines}"))[1]

    assert ": good" in tls('ca_file = "ca.pem"')
    assert ": good" in tls('ca_file = "ca.pem"\ncert_file = "ca.pem"\nkey_file = "ca.key"')
    assert ":6: mqtt.ca_file: " in tls('ca_file = "old.pem"')
    assert "holds no certificate in PEM" in tls('ca_file = "empty"')
    assert ":7: mqtt.cert_file: " in tls('ca_file = "ca.pem"\ncert_file = "ca.pem"\nkey_file = "old.key"')
