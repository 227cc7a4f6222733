"""What the simulator found, for people (rich tables) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from cosine.sim.outcome import Row
from cosine.sim.profile import Profile
from cosine.sim.sweep import Point

COLUMNS = (
    "ms/token",
    "tokens/s",
    "to plain",
    "TTFT ms",
    "TTFT p95",
    "accepted",
    "verifier %",
    "drafter %",
    "drafts wasted %",
    "checks wasted %",
)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def as_sweep_table(name: str, points: Sequence[Point]) -> Table:
    """One line per point."""
    table = Table(title=f"sweep over {name}", title_justify="left")
    table.add_column("series")
    titles = ("count", "tokens/s", "ms/token", "accepted", "verifier %", "drafter %", "control %")
    for title in (*titles, "scheduler us/token", "fusion us/token", "scheduler us/verdict"):
        table.add_column(title, justify="right")
    for point in sorted(points, key=lambda point: point.series):
        table.add_row(
            point.series,
            str(point.count),
            f"{point.tokens_per_s:.0f}",
            f"{point.latency_ms:.1f}",
            f"{point.acceptance_length:.2f}",
            f"{100 * point.verifier_busy:.0f}",
            f"{100 * point.drafter_busy:.0f}",
            f"{100 * point.control_busy:.0f}",
            f"{point.scheduler_us:.0f}",
            f"{point.fusion_us:.0f}",
            f"{point.round_us:.0f}",
        )
    return table


def write_sweep_json(path: Path, name: str, points: Sequence[Point]) -> None:
    """Adds a sweep to a file of sweeps."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content[name] = [asdict(point) for point in points]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
