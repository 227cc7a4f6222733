"""Pictures of a report, as the literature draws them: latency per token and throughput over the number of requests at a
time, and latency per token under arrivals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.paper.cells import Figures
from bench.paper.loads import parse_load
from bench.paper.report import Report

SUFFIXES = (".png", ".svg")
SIZE_INCHES = (7.0, 4.2)
MARKERS = "osv^D*PXph"
LATENCY = "latency per token, ms"


def draw(report: Report, title: str, folder: Path) -> list[Path]:
    """Draws what the report has cells for; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, paint in PICTURES.items():
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        if paint(axes, report):
            axes.set_title(title, fontsize=10)
            axes.legend(fontsize=8)
            for suffix in SUFFIXES:
                written.append(folder / f"{name}{suffix}")
                figure.savefig(written[-1], dpi=150)
    return written


def latency(axes: Axes, report: Report) -> bool:
    """Latency per token over requests at a time; False where there is nothing to draw."""
    return _over_batch(axes, report, LATENCY, lambda found: found.token_ms)


def throughput(axes: Axes, report: Report) -> bool:
    """Throughput over requests at a time; False where there is nothing to draw."""
    return _over_batch(axes, report, "tokens per second", lambda found: found.tokens_per_s)


def _over_batch(axes: Axes, report: Report, label: str, value: Callable[[Figures], float]) -> bool:
    sizes: set[int] = set()
    for index, (strategy, by_load) in enumerate(report.series(value).items()):
        points = sorted(
            (load.clients, found) for name, found in by_load.items() if not (load := parse_load(name)).is_open
        )
        if points:
            clients, values = zip(*points, strict=True)
            axes.plot(clients, values, marker=MARKERS[index % len(MARKERS)], label=strategy)
            sizes.update(clients)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.set_xlabel("requests at a time")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    return bool(sizes)


def under_arrivals(axes: Axes, report: Report) -> bool:
    """Latency per token under arrivals: a group of bars per load, a bar per strategy; False where there are none."""
    loads = [name for name in report.loads if parse_load(name).is_open]
    series = {
        strategy: its
        for strategy, its in report.series(lambda found: found.token_ms).items()
        if its.keys() & set(loads)
    }
    width = 0.8 / max(1, len(series))
    for index, (strategy, by_load) in enumerate(series.items()):
        places = {place + index * width: by_load[name] for place, name in enumerate(loads) if name in by_load}
        axes.bar(list(places), list(places.values()), width, label=strategy)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(loads))], loads)
    axes.set_ylabel(LATENCY)
    axes.grid(axis="y", alpha=0.3)
    return bool(series)


PICTURES: dict[str, Callable[[Axes, Report], bool]] = {
    "latency": latency,
    "throughput": throughput,
    "open-loop": under_arrivals,
}
