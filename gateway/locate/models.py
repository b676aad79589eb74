"""The models of hearing that a site or a zone gets. What is known of it decides; the engine then weighs the models."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.locate import levels
from gateway.locate.hearing import Model
from gateway.locate.levels import Law, Lawful, LevelMap
from gateway.locate.ways import PathLine
from gateway.recording import DeviceLaw, RecordedSite, Survey

CHANNEL = DeviceLaw(-45.0, 2.5, 6.0)
"""The law if there is no survey and nothing is known of the devices."""
STREET_P0_DB, STREET_EXPONENT, STREET_SIGMA_DB = -6.0, 2.5, 5.0
"""A zone without a walk test: a tag on a bag is heard 6 dB below its calibrated power at 1 m. Exponent: 2.0-2.5 in
sight, more behind corners. Unverified for our streets."""
STREET_EXPONENT_SD, STREET_TAG_SD_DB = 0.15, 2.0
BAG_DB = -5.0
"""A bag is worn on the back, so it is heard best from behind: with STREET_P0_DB, 1 dB is lost there and 11 dB in front.
6-7 dB between the two were measured for a tag on the chest; unverified for bags."""
TAG_HEIGHT_M = 1.0


def models_of(
    site: RecordedSite, survey: Survey, *, power_dbm: float = 0.0, walls: Sequence[PathLine] | None = None
) -> list[Model]:
    """Return the models of a recorded site, with power_dbm subtracted from their levels.

    walls: outlines in which the walk test may have lost something; None: those of the site's places.
    """
    worn = site.worn == "body"
    if walls is None:
        walls = [[(float(x), float(y)) for x, y in area.ring_m] for area in site.places or ()]
    if len(survey):
        rows = levels.rows_of(survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm - power_dbm, survey.count)
        law = levels.fit_law(site.readers_m, site.tag_height_m, rows, worn=worn, look=site.look, walls=walls)
        return [Lawful(law, levels.SURVEYED_SD, levels.TAG_SD_DB), LevelMap(law, rows)]
    channel = site.channel or CHANNEL
    bodies = (levels.BODY_DB, -levels.BODY_DB) if worn else (0.0,)
    p0_dbm = np.full(len(site.reader_ids), channel.p0_dbm - power_dbm)
    tag_sd_db = levels.UNKNOWN_SD_DB if site.channel is None else levels.KIND_SD_DB
    return [
        Lawful(
            Law(site.readers_m, site.tag_height_m, p0_dbm, channel.exponent, body_db, channel.sigma_db, site.look),
            levels.UNSURVEYED_SD,
            tag_sd_db,
        )
        for body_db in bodies
    ]


def models_of_street(
    readers_m: Sequence[tuple[float, float, float]],
    look: Sequence[float] | None = None,
    walls: Sequence[PathLine] = (),
    wall_db: Sequence[float] = (),
) -> list[Model]:
    """Return the model of a zone without a walk test, for a tag on a bag. Levels are relative to the tag's power.

    look: of each reader's antenna (`gateway.antenna`); None: all dipoles. walls: outlines, with the loss of each as
    the readers' beacons measured it.
    """
    at = np.array(readers_m, float).reshape(-1, 3)
    law = Law(
        at, TAG_HEIGHT_M, np.full(len(at), STREET_P0_DB), STREET_EXPONENT, BAG_DB, STREET_SIGMA_DB,
        None if look is None else np.array(look, float), walls=tuple(walls), wall_db=tuple(wall_db),
    )  # fmt: skip
    return [Lawful(law, STREET_EXPONENT_SD, STREET_TAG_SD_DB)]


def of_readers(site: RecordedSite, survey: Survey, names: Sequence[str]) -> tuple[RecordedSite, Survey]:
    """Return a site and its survey for some of its readers, in the order of names. Rows of other readers are left out.

    Raise ValueError when a name is no reader of the site.
    """
    index = {name: i for i, name in enumerate(site.reader_ids)}
    if missing := [name for name in names if name not in index]:
        raise ValueError(f"readers {', '.join(missing)} are not in the site {site.name}; walk the zone again")
    order = np.array([index[name] for name in names])
    new = np.full(len(site.reader_ids), -1)
    new[order] = np.arange(len(order))
    reader = new[survey.reader]
    kept = reader >= 0
    fewer = Survey(survey.xy_m[kept], survey.heading_deg[kept], reader[kept], survey.rssi_dbm[kept], survey.count[kept])
    look = None if site.look is None else site.look[order]
    return replace(site, reader_ids=tuple(names), readers_m=site.readers_m[order], look=look), fewer
