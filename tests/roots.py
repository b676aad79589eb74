"""Folders that every test can use: the checkout, and the recordings next to it that tests may read (`SHARED`)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RECORDED = SHARED / "data" / "rssi"
"""Recorded sites with truth. A test that does not find them is skipped, and says so."""
GONGDEOK = ROOT / "sim" / "street" / "sites" / "gongdeok.geojson"
