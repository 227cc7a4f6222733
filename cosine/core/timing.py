"""Time models, learned online: how long a forward pass takes for its rows, how long drafting takes for its exchanges.

A line `base + slope * size`, fitted by least squares whose older observations fade, with both coefficients held at or
above zero, since neither a pass nor a row takes negative time.
"""

from __future__ import annotations

from dataclasses import dataclass

FADE = 0.97
RATE_FADE = 0.9
LEAST_MS = 0.05
OUTLIER = 4.0


@dataclass(slots=True)
class LineModel:
    """`predict(size)` in milliseconds. `base_ms` and `slope_ms` are the prior, worth `weight` observations."""

    base_ms: float
    slope_ms: float
    weight: float = 2.0
    prior_size: float = 8.0
    _n: float = 0.0
    _x: float = 0.0
    _xx: float = 0.0
    _y: float = 0.0
    _xy: float = 0.0

    def __post_init__(self) -> None:
        for size in (1.0, 2 * self.prior_size):
            self._add(size, self.base_ms + self.slope_ms * size, self.weight / 2)

    def note(self, size: float, took_ms: float) -> None:
        """One observation. What takes several times as long as predicted is a stall, not the model's business."""
        took_ms = min(took_ms, OUTLIER * max(self.predict(size), 0.05)) if self._n > 2 * self.weight else took_ms
        for name in ("_n", "_x", "_xx", "_y", "_xy"):
            setattr(self, name, getattr(self, name) * FADE)
        self._add(size, took_ms, 1.0)
        self._solve()

    def predict(self, size: float) -> float:
        """Milliseconds for `size`."""
        return self.base_ms + self.slope_ms * size

    def _add(self, size: float, took_ms: float, weight: float) -> None:
        self._n += weight
        self._x += weight * size
        self._xx += weight * size * size
        self._y += weight * took_ms
        self._xy += weight * size * took_ms

    def _solve(self) -> None:
        spread = self._n * self._xx - self._x * self._x
        if spread > 1e-3 * self._n * self._n:
            self.slope_ms = max(0.0, (self._n * self._xy - self._x * self._y) / spread)
        self.base_ms = max(0.0, (self._y - self.slope_ms * self._x) / self._n)
        if self.base_ms == 0.0 and self._x > 0:
            self.slope_ms = self._y / self._x


@dataclass(slots=True)
class RateModel:
    """`predict(size)` in milliseconds as `base_ms + rate_ms * size`, for work that reports how much of its time was
    spent on its size: the rate is learned from that, the base from the rest (messages, waiting)."""

    base_ms: float
    rate_ms: float

    def note(self, size: float, took_ms: float, spent_ms: float) -> None:
        """One observation; what takes several times as long as predicted is a stall, not the model's business."""
        spent_ms = min(spent_ms, took_ms, OUTLIER * max(self.rate_ms * size, LEAST_MS))
        rest_ms = min(took_ms - spent_ms, OUTLIER * max(self.base_ms, LEAST_MS))
        self.rate_ms += (1 - RATE_FADE) * (spent_ms / size - self.rate_ms)
        self.base_ms += (1 - RATE_FADE) * (rest_ms - self.base_ms)

    def predict(self, size: float) -> float:
        """Milliseconds for `size`."""
        return self.base_ms + self.rate_ms * size
