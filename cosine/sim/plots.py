"""Plots of what the simulator found, as PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from cosine.sim.outcome import Row
from cosine.sim.sweep import Point

matplotlib.use("Agg")

from matplotlib import pyplot  # the backend is chosen first

DPI = 120


def plot_rows(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Throughput and latency of closed loops over the number of clients, a line per strategy."""
    closed = [row for row in rows if row.load.startswith("closed-")]
    paths = []
    for field, title in (("tokens_per_s", "tokens/s"), ("latency_ms", "ms per token")):
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for strategy in dict.fromkeys(row.strategy for row in closed):
            line = [row for row in closed if row.strategy == strategy]
            clients = [int(row.load.removeprefix("closed-")) for row in line]
            axes.plot(clients, [getattr(row, field) for row in line], marker="o", label=strategy)
        _finish(axes, "requests at a time", title)
        paths.append(_save(figure, folder / f"{field}.png"))
    return paths


def plot_sweep(name: str, points: Sequence[Point], folder: Path) -> Path:
    """Throughput, latency and computing time over the count, a line per series."""
    figure, all_axes = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for axes, field, title in zip(
        all_axes,
        ("tokens_per_s", "latency_ms", "round_us"),
        ("tokens/s", "ms per token", "scheduler: us per verdict"),
        strict=True,
    ):
        for series in dict.fromkeys(point.series for point in points):
            line = [point for point in points if point.series == series]
            axes.plot([point.count for point in line], [getattr(point, field) for point in line], "o-", label=series)
        _finish(axes, name, title)
    return _save(figure, folder / f"sweep_{name}.png")


def _finish(axes: Any, x_title: str, y_title: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path
