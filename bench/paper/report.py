"""What the cells say, as tables for people and as JSON for programs. Medians where there are several runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.table import Table

from bench.paper.cells import OVERRUN_MAX, Cell, Figures
from cosine.sim.lead import Score, lead

PLAIN = "plain"
COLUMNS = (
    *("strategy", "ms/token", "+-", "sim", "tokens/s", "x plain", "TTFT ms", "tokens/verdict"),
    *("busy %", "drafted", "verified", "overrun %", ""),
)
LEGEND = (
    "ms/token: a request's time from its arrival to its last token, over its tokens; +-: half of its 95 % interval "
    "over requests; sim: what the simulator says for the same requests. busy: verifier computing. drafted, verified: "
    "% of tree nodes made by drafters, and checked by the target, that were never committed. overrun: % of passes of "
    f"the worst process that this machine could not run in time; above {OVERRUN_MAX:.0%} the row is invalid. Other "
    "text: not plain decoding's, for the same requests."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy under one load, over all its runs."""

    load: str
    strategy: str
    figures: Figures | None
    refused: str
    is_valid: bool


class Report:
    """All cells of one profile, in the order in which strategies and loads were asked for."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)
        self.loads = list(dict.fromkeys(cell.key.load for cell in cells))
        self.strategies = list(dict.fromkeys(cell.key.strategy for cell in cells))

    def row(self, load: str, strategy: str) -> Row | None:
        """None where the cell was not asked for."""
        its = [cell for cell in self.cells if (cell.key.load, cell.key.strategy) == (load, strategy)]
        measured = [cell.figures for cell in its if cell.figures is not None]
        if not its:
            return None
        refused = next((cell.refused for cell in its if cell.refused), "")
        middle = median(measured) if measured and not refused else None
        return Row(load, strategy, middle, refused, all(found.is_valid for found in measured))

    def tables(self) -> Iterator[Table]:
        """One table per load."""
        for load in self.loads:
            table = Table(title=load, title_justify="left")
            for name in COLUMNS:
                table.add_column(
                    name, justify="left" if name in ("strategy", "") else "right", no_wrap=name != "strategy"
                )
            for strategy in self.strategies:
                row = self.row(load, strategy)
                if row is not None:
                    table.add_row(*self.texts(row))
            yield table

    def texts(self, row: Row) -> list[str]:
        """The cells of a table's row."""
        found = row.figures
        if found is None:
            return [row.strategy, *[""] * (len(COLUMNS) - 2), "refused"]
        plain = self.row(row.load, PLAIN)
        ratio = f"{found.tokens_per_s / plain.figures.tokens_per_s:.2f}" if plain and plain.figures else ""
        same_text = self.same_text(row.load, row.strategy)
        problems = [name for name, is_fine in (("INVALID", row.is_valid), ("OTHER TEXT", same_text)) if not is_fine]
        return [
            row.strategy,
            f"{found.token_ms:.2f}",
            f"{found.token_ms_95:.2f}",
            "-" if found.virtual_ms is None else f"{found.virtual_ms:.2f}",
            f"{found.tokens_per_s:.1f}",
            ratio,
            f"{found.first_token_ms:.0f}",
            f"{found.acceptance:.2f}",
            _percent(found.verifier_busy),
            _percent(found.drafted_wasted),
            _percent(found.verified_wasted),
            f"{found.overrun:.1%}".removesuffix("%"),
            ", ".join(problems),
        ]

    def same_text(self, load: str, strategy: str) -> bool:
        """True unless a request's text differs from what plain decoding wrote for the same request."""
        return all(
            mine == theirs
            for cell in self._measured(load, strategy)
            for plain in self._measured(load, PLAIN)
            for mine, theirs in zip(cell.texts, plain.texts, strict=False)
        )

    def _measured(self, load: str, strategy: str) -> Iterator[Figures]:
        for cell in self.cells:
            if (cell.key.load, cell.key.strategy) == (load, strategy) and cell.figures is not None:
                yield cell.figures

    def notes(self, sources: str) -> Iterator[str]:
        """What is to be known beside the tables; `sources` is the digest of today's code."""
        yield LEGEND
        for load in self.loads:
            if words := lead(self._scores(load)):
                yield f"{load}: {words}"
        for cell in self.cells:
            if cell.refused:
                yield f"{cell.key.strategy}, {cell.key.load}: refused, {cell.refused}"
        took = [cell.took_s for cell in self.cells if cell.figures is not None]
        if took:
            yield f"seconds of real time per cell: {min(took):.0f} to {max(took):.0f}, all together {sum(took):.0f}"
        if other := Counter(cell.key.strategy for cell in self.cells if cell.sources != sources):
            told = ", ".join(f"{count} of {strategy}" for strategy, count in other.items())
            yield (
                f"other code than today's measured {other.total()} of {len(self.cells)} cells ({told}); "
                "--again measures all anew"
            )

    def _scores(self, load: str) -> dict[str, Score]:
        rows = [self.row(load, strategy) for strategy in self.strategies]
        valid = {row.strategy: row.figures for row in rows if row is not None and row.is_valid}
        return {name: Score(found.token_ms, found.tokens_per_s) for name, found in valid.items() if found is not None}

    def as_json(self) -> dict[str, Any]:
        """All cells, and the medians that the tables show."""
        rows = [self.row(load, strategy) for load in self.loads for strategy in self.strategies]
        return {
            "rows": [
                _without_texts(asdict(row)) | {"same_text": self.same_text(row.load, row.strategy)}
                for row in rows
                if row is not None
            ],
            "cells": [cell.as_json() for cell in self.cells],
        }

    def series(self, value: Callable[[Figures], float]) -> dict[str, dict[str, float]]:
        """Per strategy and load, one figure; what was refused or is invalid is absent."""
        found: dict[str, dict[str, float]] = {}
        for strategy in self.strategies:
            for load in self.loads:
                row = self.row(load, strategy)
                if row is not None and row.figures is not None and row.is_valid:
                    found.setdefault(strategy, {})[load] = value(row.figures)
        return found


def median(measured: Sequence[Figures]) -> Figures:
    """Figure by figure."""
    middle: dict[str, Any] = {"texts": measured[0].texts}
    for entry in fields(Figures):
        if entry.name != "texts":
            values = [value for found in measured if (value := getattr(found, entry.name)) is not None]
            middle[entry.name] = statistics.median(values) if values else None
    return Figures(**middle)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def _without_texts(row: dict[str, Any]) -> dict[str, Any]:
    found = row["figures"]
    return row | {"figures": found and {key: value for key, value in found.items() if key != "texts"}}
