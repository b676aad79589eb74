"""How likely what was heard is for every look (a cell and a facing): Student's t in dB around the expected level.

Errors at one place last, so one second's readings say less than their spread suggests. Therefore the log-likelihood is
tempered: it is multiplied by less than 1. A healthy reader that hears nothing says a little too.
"""

from typing import Any, Protocol

import numpy as np

from gateway.locate.space import Space

FREEDOM = 4.0
"""Of Student's t: about one reading in thirty is far off (bodies, doors, reflections). With 5 % of the readings
20-40 dB off, a normal law doubles the mean error and this law adds 5 % to it."""
TEMPER = 0.4
"""The likelihood is raised to this power until more is known of a tag (`Beliefs.tempers`). On recorded walks
residuals about a map correlate by r = 0.3-0.5 from one second to the next (0.7 about a law): n seconds are worth
n (1 - r) / (1 + r) independent ones."""
SLOW_DB, FAST_DB = 2.3, 2.5
"""Spread of what no map knows of a place, and spread of packets. A reading is the mean of `packets` packets."""
PACKETS_USUAL = 2.0
APART_MAX_S = 6.0
"""A reading is worth more after a longer pause of the same reader. A pause longer than this adds nothing."""
FLOOR_DBM, FLOOR_WIDTH_DB, ATTENTION, ATTENTION_WHOLE = -92.0, 2.5, 0.3, 0.9
"""At the floor half of all packets are read (-91 to -93 measured). ATTENTION: the least share of readable packets that
a reader reads. The rest may be lost to its scan duty, to collisions, or to any other cause of a silence.
ATTENTION_WHOLE: the same for one moment by itself, when all readers have reported."""


_ABOVE_DB, _SDS = np.linspace(-40.0, 40.0, 161), np.linspace(-4.0, 4.0, 81)
"""Levels above the floor, and the points, in sd, at which a normal law is computed."""


class Model(Protocol):
    def expect(self, xy_m: Any, facing: Any | None = None) -> tuple[Any, Any]:
        """Return (level, sd of a place's mean), both [places, readers]."""
        ...

    def steepness(self, xy_m: Any) -> Any:
        """Return the change of the level when the exponent grows by 1, dB [places, readers]."""
        ...

    @property
    def exponent_sd(self) -> float:
        """Standard deviation of the exponent."""
        ...

    @property
    def power_sd_db(self) -> float:
        """Standard deviation of a tag's power."""
        ...


class Hearing:
    """One model on one space, with arrays laid out for the product over readers. Immutable."""

    def __init__(self, space: Space, model: Model, *, power_dbm: float = 0.0, temper: float = TEMPER) -> None:
        """power_dbm: what to add to the model's levels to get dBm. Only the floor of hearing needs it."""
        means, spreads, slopes = [], [], []
        for block in space.blocks:
            for facing in block.facings:
                level, sd_db = model.expect(space.xy_m[block.span], facing)
                means.append(level)
                spreads.append(sd_db)
                slopes.append(model.steepness(space.xy_m[block.span]))
        headings = space.blocks[0].headings
        self._flat = len(space.blocks) == 1 and all(np.array_equal(means[0], each) for each in means[1:headings])
        """Whether facing changes nothing. Then one heading is computed and copied to all."""
        mean = np.concatenate(means).T
        sd = np.sqrt(np.concatenate(spreads).T ** 2 + SLOW_DB**2 + FAST_DB**2 / PACKETS_USUAL)
        self.space, self.temper, self._power_dbm = space, temper, power_dbm
        self.mean = np.ascontiguousarray(mean, np.float32)
        """[readers, looks]."""
        self.usual_db2 = np.median(sd, axis=1) ** 2
        slope = np.concatenate(slopes).T
        self.slope = np.ascontiguousarray(slope, np.float32)
        """[readers, looks]: change in dB when the exponent grows by 1."""
        self.exponent_sd, self.power_sd_db = model.exponent_sd, model.power_sd_db
        law = getattr(model, "law", None)
        self.p0_db: Any = None if law is None else law.p0_dbm
        """[readers]: the law's level at 1 m; None for a model without a law."""
        rows = np.stack([1 / sd, mean / sd, slope / sd], axis=1)
        self._rows = np.ascontiguousarray(rows, np.float32)  # [readers, 3, looks]; twice as fast in this order
        self._log_sd = np.ascontiguousarray(np.log(sd), np.float32)
        read = _read(mean + power_dbm)
        self._log_silent, self._log_silent_whole = (
            np.ascontiguousarray(np.log1p(-attention * read), np.float32) for attention in (ATTENTION, ATTENTION_WHOLE)
        )
        spread_db = float(np.median(sd)) if sd.size else SLOW_DB
        weight = np.exp(-(_SDS**2) / 2) * _read(FLOOR_DBM + _ABOVE_DB[:, None] + spread_db * _SDS)
        self._lift_db = spread_db * (weight @ _SDS) / weight.sum(axis=1)

    def lift_db(self, level: Any, power_dbm: Any | None = None) -> Any:
        """Return by how many dB what is read lies above the mean level [.., readers]. At the floor of hearing only
        packets that fade upwards are read. power_dbm: the power of the tags; None: that of the model."""
        power_dbm = self._power_dbm if power_dbm is None else power_dbm
        return np.interp(level + power_dbm - FLOOR_DBM, _ABOVE_DB, self._lift_db)

    def log_likelihood(
        self,
        level: Any,
        packets: Any,
        silent: Any,
        exponent: Any,
        apart_s: Any,
        *,
        temper: Any | None = None,
        complete: bool = False,
    ) -> Any:
        """Return the log-likelihood [tags, looks], shifted so that each row's largest is 0, and that shift [tags].

        level [tags, readers]. packets [tags, readers]: 0 if nothing was heard; the level is then ignored. silent [tags,
        readers]: 1 where a healthy reader heard nothing although the tag was heard. exponent [tags]: what to add to the
        model's. apart_s [tags, readers]: seconds since the reader last heard the tag; a rare reading is worth more
        (`TEMPER`). complete: one moment by itself, when all readers have reported.
        """
        heard = packets > 0
        spread = FAST_DB**2 / np.maximum(packets, 1) - FAST_DB**2 / PACKETS_USUAL
        own = np.broadcast_to(np.asarray(self.temper if temper is None else temper, float), (len(level), 1))
        worth = np.where(heard, (1 - (1 - own) ** np.clip(apart_s, 1.0, APART_MAX_S)) / own, 0.0)
        scale = np.sqrt(worth / (FREEDOM * np.maximum(1 + spread / self.usual_db2, 0.3)))
        looks = slice(-self.space.cells if self._flat else 0, None)
        product = np.ones((len(level), len(self._log_silent[0, looks])), np.float32)
        off = np.empty_like(product)
        pair = np.stack([scale * np.where(heard, level, 0.0), -scale, -scale * exponent[:, None]], axis=2)
        pair = np.ascontiguousarray(pair.transpose(1, 0, 2), np.float32)
        folded = None
        for n, reader in enumerate(np.flatnonzero(heard.any(axis=0)), start=1):
            np.matmul(pair[reader], self._rows[reader][:, looks], out=off)
            off *= off
            off += 1.0
            product *= off
            if n % 4 == 0 and product.max() > 1e12:  # many readers far off; a float32 ends at 3e38
                folded = np.log(product) if folded is None else folded + np.log(product)
                product.fill(1.0)
        result = np.log(product, out=product)
        if folded is not None:
            result += folded
        result *= -(FREEDOM + 1) / 2
        result -= worth.astype(np.float32) @ self._log_sd[:, looks]
        if silent.any():
            log_silent = self._log_silent_whole if complete else self._log_silent
            result += silent.astype(np.float32) @ log_silent[:, looks]
        result *= own.astype(np.float32)
        top = result.max(axis=1)
        result -= top[:, None]
        if self._flat:
            result = np.tile(result, (1, self.space.blocks[0].headings))
        return result, top


def _read(level_dbm: Any) -> Any:
    """Return the share of the packets of a level that is read."""
    return 1 / (1 + np.exp(-(level_dbm - FLOOR_DBM) / FLOOR_WIDTH_DB))
