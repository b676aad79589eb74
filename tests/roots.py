"""Where things are, for every test: the checkout, and the recordings beside it that tests may read (`SHARED`)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RECORDED = SHARED / "data" / "rssi"
"""Recorded sites with truth. A test that finds them absent skips and says so."""
GONGDEOK = ROOT / "sim" / "street" / "sites" / "gongdeok.geojson"
