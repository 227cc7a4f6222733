"""Plots of what the simulator found, as SVG files, drawn without a display: the same figures make the same file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from cosine.sim.knee import saturation
from cosine.sim.outcome import Row
from cosine.sim.report import by_series
from cosine.sim.sweep import Point

matplotlib.use("Agg")

from matplotlib import pyplot  # the backend is chosen first

Panel = tuple[str, str, str]  # a point's field, its title, its scale

THROUGHPUT: Panel = ("tokens_per_s", "tokens/s", "linear")
LATENCY: Panel = ("latency_ms", "ms per token", "linear")
ROUND: Panel = ("round_us", "scheduler: µs per verdict", "linear")
BUSIEST: Panel = ("drafter_busy_most", "busiest drafter: share of time", "linear")
EACH: Panel = ("tokens_per_s_each", "tokens/s per verifier", "linear")
MEMORY: Panel = ("scheduler_kb", "scheduler: kB", "log")
ALARMS: Panel = ("alarms_kb", "scheduler's alarms: kB", "linear")
PANELS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "drafters": ("drafters", (THROUGHPUT, LATENCY, BUSIEST)),
    "verifiers": ("verifiers", (THROUGHPUT, LATENCY, EACH)),
    "live": ("requests at a time", (THROUGHPUT, LATENCY, ROUND, MEMORY)),
    "requests": ("requests in all", (THROUGHPUT, LATENCY, ROUND, ALARMS)),
}
LOGARITHMIC = {("verifiers", "tokens_per_s"), ("live", "latency_ms")}  # these grow with the count itself
HEIGHT, WIDTH = 3.6, 4.6  # of a panel, in inches


def plot_rows(rows: Sequence[Row], folder: Path, name: str) -> list[Path]:
    """Throughput and latency of closed loops over the number of clients, a line per strategy; `name` begins the files'
    names."""
    closed = [row for row in rows if row.load.startswith("closed-")]
    paths = []
    for kind, (field, title, scale) in (("throughput", THROUGHPUT), ("latency", LATENCY)):
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for strategy in dict.fromkeys(row.strategy for row in closed):
            line = [row for row in closed if row.strategy == strategy]
            clients = [int(row.load.removeprefix("closed-")) for row in line]
            axes.plot(clients, [getattr(row, field) for row in line], marker="o", label=strategy)
        _finish(axes, "requests at a time", title, scale)
        axes.legend(fontsize="small")
        paths.append(_save(figure, folder / f"{name}-{kind}.svg"))
    return paths


def plot_sweep(name: str, points: Sequence[Point], folder: Path) -> Path:
    """Throughput, latency and what explains them over the count, a line per series; a star where throughput bends."""
    x_title, panels = PANELS[name]
    size = (WIDTH * len(panels), HEIGHT)
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=size, layout="constrained")
    for axes, (field, title, scale) in zip(all_axes, panels, strict=True):
        for series, line in by_series(points).items():
            counts = [point.count for point in line]
            (drawn,) = axes.plot(counts, [getattr(point, field) for point in line], "o-", markersize=4, label=series)
            knee = saturation(counts, [point.tokens_per_s for point in line])
            if field == "tokens_per_s" and knee is not None:
                height = line[counts.index(knee)].tokens_per_s
                axes.plot([knee], [height], "*", markersize=14, color=drawn.get_color())
        _finish(axes, x_title, title, "log" if (name, field) in LOGARITHMIC else scale)
    all_axes[0].legend(fontsize="small")
    return _save(figure, folder / f"scaling-{name}.svg")


def _finish(axes: Any, x_title: str, y_title: str, scale: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale(scale)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
