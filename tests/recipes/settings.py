"""An option of the gateway, and one of the city: read, refused with what would be right, and used."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.recipes.recipe import Edit, Recipe


def gateway_option_works(folder: Path) -> None:
    """`check` reads it, refuses a wrong value with its hint, and the radio is started with it."""
    from gateway.config.load import load
    from gateway.radio.coordinator import Radio
    from tests.gateway.config import bed

    (folder / "gateway_store").mkdir()
    for name, value in (
        ("reader_keys.json", bed.READER_KEYS),
        ("tag_keys.json", bed.TAG_KEYS),
        ("city.keys", bed.LINK_KEYS),
    ):
        bed.secret(folder / name, value)
    for line, wanted in (("", True), ("source_routing = false\n", False)):
        installation = load(bed.written(folder, bed.GOOD.replace("[radio]\n", f"[radio]\n{line}")))
        radio: Any = SimpleNamespace(installation=installation, _copy=None)
        assert Radio._conf(radio)["source_routing"] is wanted
    [fault] = bed.faults(folder, bed.GOOD.replace("[radio]\n", "[radio]\nsource_routing = 7\n"))
    assert "source_routing" in fault
    assert "true, or false in a mesh of one hop" in fault


GATEWAY_OPTION = Recipe(
    "an option of the gateway",
    (
        Edit(
            "gateway/options.py",
            '    database: Text = "zigbee.db"\n',
            '    database: Text = "zigbee.db"\n    source_routing: bool = True\n',
        ),
        Edit(
            "gateway/options.py",
            '    "radio.tx_power_dbm":',
            '    "radio.source_routing": "true, or false in a mesh of one hop",\n    "radio.tx_power_dbm":',
        ),
        Edit(
            "gateway/radio/coordinator.py",
            '            "source_routing": True,',
            '            "source_routing": radio.source_routing,',
        ),
        Edit(
            "docs/GATEWAY.md",
            "| `tx_power_dbm`, `country` |",
            "| `source_routing` | whether the stick names the way through the mesh | true |\n"
            "| `tx_power_dbm`, `country` |",
        ),
    ),
    gateway_option_works,
    (
        "tests.test_docs::test_every_setting_is_documented",
        "tests.test_nothing_missing::test_every_setting_is_used",
        "tests.gateway.config.test_convert::test_every_key_has_a_hint",
    ),
)


def city_option_works(folder: Path) -> None:
    """It is read, a wrong value is refused with what is right, and the page follows it."""
    import pytest

    from city.config import CityConfigError
    from city.pages.app import make_app
    from tests.city.test_interface import Clock, made_city
    from tests.recipes.page import logged_in

    city = made_city(folder, Clock(), "refresh_s = 9\n")
    try:
        answer = logged_in(make_app(city), folder).get("/calls")
        assert answer.status_code == 200
        assert '<meta http-equiv="refresh" content="9' in answer.text
    finally:
        city.store.close()
    with pytest.raises(CityConfigError, match=r"web\.refresh_s.*right would be seconds, 1\.\.60"):
        made_city(folder, Clock(), "refresh_s = 0\n")


CITY_OPTION = Recipe(
    "an option of the city",
    (
        Edit(
            "city/config.py",
            "    secure_cookie: bool = False\n",
            "    refresh_s: Annotated[int, Meta(ge=1, le=60)] = 5\n"
            '    """How often the plain list of calls renews itself."""\n'
            "    secure_cookie: bool = False\n",
        ),
        Edit(
            "city/config.py",
            '    "web.secure_cookie":',
            '    "web.refresh_s": "seconds, 1..60: refresh_s = 5",\n    "web.secure_cookie":',
        ),
        Edit("city/pages/calls.py", "refresh_s=REFRESH_S", "refresh_s=city.config.web.refresh_s"),
        Edit("city/pages/calls.py", "REFRESH_S = 5\n", ""),
        Edit(
            "docs/CITY.md",
            "| `secure_cookie` |",
            "| `refresh_s` | seconds after which the plain list of calls renews itself | 5 |\n| `secure_cookie` |",
        ),
    ),
    city_option_works,
    (
        "tests.test_docs::test_every_setting_is_documented",
        "tests.test_nothing_missing::test_every_setting_is_used",
    ),
)
