"""A good configuration with its key files, and functions that write one and return the faults found in it."""

import datetime
import functools
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config.findings import ConfigError
from gateway.config.load import load

GOOD = """site = "gongdeok"
gateway = "gw1"

[radio]
port = "socket://127.0.0.1:6638"
channel = 20

[store]
folder = "outbox"

[mqtt]
host = "127.0.0.1"
port = 1883

[settings]
version = 3

[[readers]]
number = 1
eui64 = "0013a20041234567"
lon = 126.9520
lat = 37.5440
pole = "corner of the school"

[[readers]]
number = 2
eui64 = "0013a20041234568"
lon = 126.9530
lat = 37.5440
height_m = 4

[[places]]
id = "school"
kind = "school"
polygon = [
    [126.950, 37.543],  # a corner [this bracket counts for nothing]
    [126.951, 37.543],
    [126.951, 37.544],
]

[[dangers]]
id = "river"
polygon = [[126.940, 37.543], [126.941, 37.543], [126.941, 37.544]]

[[bells]]
id = "gate"
reader = 2
input = 3
"""
READER_KEYS = {"1": "00112233445566778899aabbccddeeff", "2": "00112233445566778899AABBCCDDEE00"}
LINK_KEYS = f"2 {'ab' * 32}\n1 {'cd' * 32}\n"
TAG_KEYS = {"t-01": {"k_id": "01" * 16, "k_mic": "02" * 16}, "t-02": {"k_id": "03" * 16, "k_mic": "02" * 16}}


def secret(path: Path, value: object, mode: int = 0o600) -> Path:
    """Write a file that only its owner may read: text as it is, anything else as JSON."""
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return path


def written(folder: Path, text: str) -> Path:
    """Write a configuration; return its path."""
    path = folder / "gateway.toml"
    path.write_bytes(text.encode())
    return path


def faults(folder: Path, text: str) -> list[str]:
    """Return every problem of a configuration, which must have one."""
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return [str(problem) for problem in caught.value.problems]


def only(folder: Path, text: str) -> str:
    """Return the one problem of a configuration, which must have no other."""
    found = faults(folder, text)
    assert len(found) == 1, found
    return found[0]


@functools.cache
def certificate(days: int = 30) -> tuple[str, str]:
    """Return a certificate that signed itself, and its key, both PEM. days: from now to its end, which may be past."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker of a test")])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=365))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(pem).decode(), private.decode()
