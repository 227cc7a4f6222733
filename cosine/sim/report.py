"""What the simulator found, for people (rich tables) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from cosine.sim.knee import EFFICIENT, SATURATED, efficiency, exponent, saturation
from cosine.sim.lead import Score, lead
from cosine.sim.outcome import Row
from cosine.sim.profile import Profile
from cosine.sim.sweep import Point

COLUMNS = (
    "ms/token",
    "tokens/s",
    "to plain",
    "TTFT ms",
    "TTFT p95",
    "tokens/verdict",
    "verifier %",
    "drafter %",
    "drafts wasted %",
    "checks wasted %",
)
SWEEP_COLUMNS = (
    "count",
    "tokens/s",
    "each",
    "ms/token",
    "TTFT p95",
    "tokens/verdict",
    "verifier %",
    "drafter %",
    "busiest %",
    "used",
    "control %",
    "us/verdict",
    "fusion us/token",
    "live",
    "scheduler kB",
    "alarms kB",
    "fusion kB",
)
CROWD_MIN = 16  # requests from which on a scheduler's fixed costs per message no longer decide


def as_table(title: str, rows: Sequence[Row]) -> Table:
    """One line per strategy and load, load by load."""
    table = Table(title=title, title_justify="left")
    table.add_column("load", no_wrap=True)
    table.add_column("strategy", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    plain = {row.load: row.tokens_per_s for row in rows if row.strategy == "plain"}
    for index, row in enumerate(rows):
        fresh = not index or rows[index - 1].load != row.load
        if fresh and index:
            table.add_section()
        table.add_row(row.load if fresh else "", row.strategy, *_cells(row, plain.get(row.load)))
    return table


def leads(rows: Sequence[Row]) -> list[str]:
    """How far ahead `cosine` is, a line per load."""
    by_load: dict[str, dict[str, Score]] = {}
    for row in rows:
        by_load.setdefault(row.load, {})[row.strategy] = Score(row.latency_ms, row.tokens_per_s)
    return [f"{load}: {words}" for load, scores in by_load.items() if (words := lead(scores))]


def _cells(row: Row, plain: float | None) -> tuple[str, ...]:
    return (
        f"{row.latency_ms:.1f}",
        f"{row.tokens_per_s:.0f}",
        "" if plain is None else f"{row.tokens_per_s / plain:.2f}x",
        f"{row.first_token_ms:.0f}",
        f"{row.first_token_p95_ms:.0f}",
        f"{row.acceptance_length:.2f}",
        f"{100 * row.verifier_busy:.0f}",
        f"{100 * row.drafter_busy:.0f}",
        f"{100 * row.drafted_waste:.0f}",
        f"{100 * row.verified_waste:.0f}",
    )


def write_json(path: Path, profile: Profile, equal_cost: bool, rows: Sequence[Row]) -> None:
    """The rows, and what they are of."""
    content = {"profile": profile.name, "equal_cost": equal_cost, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def as_sweep_table(name: str, points: Sequence[Point]) -> Table:
    """One line per point, and where each series bends."""
    table = Table(title=f"sweep over {name}", title_justify="left", caption=knees(name, points), caption_justify="left")
    table.add_column("series")
    for title in SWEEP_COLUMNS:
        table.add_column(title, justify="right")
    for line in by_series(points).values():
        for point in line:
            table.add_row(point.series, *_sweep_cells(point))
    return table


def by_series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points in order of their count, series by series as these come."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.series, []).append(point)
    return {series: sorted(line, key=lambda point: point.count) for series, line in found.items()}


def knees(name: str, points: Sequence[Point]) -> str:
    """Where throughput bends, a line per series; of requests at a time also how the scheduler's computing grows."""
    lines = []
    for series, line in by_series(points).items():
        counts, rates = [point.count for point in line], [point.tokens_per_s for point in line]
        enough, thrifty = saturation(counts, rates), efficiency(counts, rates)
        said = "still grows" if enough is None else f"{100 * SATURATED:.0f} % of its best from {enough} on"
        if name == "verifiers":
            kept = "always" if thrifty is None else f"up to {thrifty}"
            said += f"; {100 * EFFICIENT:.0f} % of the first's throughput per verifier {kept}"
        crowd = [point for point in line if point.live_count >= CROWD_MIN]
        if name == "live" and len({point.live_count for point in crowd}) > 1:
            rounds_us = [point.round_us * point.live_count for point in crowd]
            power = exponent([point.live_count for point in crowd], rounds_us)
            said += f"; from {CROWD_MIN} on a round of all costs the scheduler live^{power:.2f}"
        lines.append(f"{series}: {said}")
    return "\n".join(lines)


def _sweep_cells(point: Point) -> tuple[str, ...]:
    return (
        str(point.count),
        f"{point.tokens_per_s:.0f}",
        f"{point.tokens_per_s_each:.2f}" if point.tokens_per_s_each < 10 else f"{point.tokens_per_s_each:.0f}",
        f"{point.latency_ms:.1f}",
        f"{point.first_token_p95_ms:.0f}",
        f"{point.acceptance_length:.2f}",
        f"{100 * point.verifier_busy:.0f}",
        f"{100 * point.drafter_busy:.0f}",
        f"{100 * point.drafter_busy_most:.0f}",
        str(point.drafters_used),
        f"{100 * point.control_busy:.0f}",
        f"{point.round_us:.0f}",
        f"{point.fusion_us:.0f}",
        str(point.live_count),
        f"{point.scheduler_kb:.0f}",
        f"{point.alarms_kb:.0f}",
        f"{point.fusion_kb:.0f}",
    )
