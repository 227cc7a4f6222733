"""Cells of the comparison and the file they are kept in: one JSON line per cell, written as soon as it is measured.

A cell that stands in the file is not measured again; a later line for the same cell takes the place of the earlier.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.paper.counters import usage
from bench.paper.measuring import Observation

STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # by degrees of freedom, from 1
NORMAL_95 = 1.96
OVERRUN_MAX = 0.02


@dataclass(frozen=True, slots=True)
class CellKey:
    """Which cell: the profile with a digest of its figures, the park's strategy (whose money's worth of hardware it
    runs on), the strategy, the load, how much is measured, and whether drafters run ahead. Cells that differ in
    anything are other cells."""

    profile: str
    profile_digest: str
    park: str
    strategy: str
    load: str
    token_count: int
    request_count: int
    open_s: float
    time_scale: float
    run: int = 0
    run_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What came out, in the profile's time. Latency per token is from a request's arrival to its last token, over its
    tokens: the mean over requests, with half the width of its 95 % interval. `texts` are digests, one per request. Of
    `pass_count` paced passes `overrun_count` overran (None: an earlier version did not count), of the worst process's
    the share `overrun`.
    `virtual_ms` is what the simulator says of `token_ms` for the same requests (None: it does not know their texts)."""

    token_ms: float
    token_ms_95: float
    tokens_per_s: float
    first_token_ms: float
    acceptance: float
    verifier_busy: float
    drafted_wasted: float | None
    verified_wasted: float | None
    overrun: float
    texts: tuple[str, ...]
    pass_count: int | None = None
    overrun_count: int | None = None
    virtual_ms: float | None = None

    @property
    def is_valid(self) -> bool:
        """False where this machine could not keep the profile's pace, or where no pass was seen to keep any. A single
        pass says nothing of the machine, whatever its share in a short run."""
        return self.pass_count != 0 and (self.overrun <= OVERRUN_MAX or self.overrun_count == 1)


@dataclass(frozen=True, slots=True)
class Cell:
    """A measured cell, or one that was `refused` (why). It took `took_s` seconds; `sources` is a digest of the code."""

    key: CellKey
    figures: Figures | None
    refused: str
    took_s: float
    sources: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return asdict(self)


def figures(observed: Observation, time_scale: float, verifier_count: int) -> Figures:
    """What an observation in real time says in the profile's. At least one request must have been served."""
    served = observed.served
    per_token = [one.total_s * 1000 / one.token_count / time_scale for one in served]
    rounds = sum(one.round_count for one in served)
    used = usage(observed.counted, observed.wall_s, verifier_count)
    return Figures(
        statistics.fmean(per_token),
        half_width(per_token),
        observed.token_count / observed.wall_s * time_scale,
        statistics.median(one.first_s * 1000 / time_scale for one in served),
        (sum(one.accepted_count for one in served) + rounds) / max(1, rounds),
        used.verifier_busy,
        used.drafted_wasted,
        used.verified_wasted,
        used.overrun,
        tuple(one.text for one in served),
        used.pass_count,
        used.overrun_count,
    )


def half_width(values: Sequence[float]) -> float:
    """Half the width of the mean's 95 % confidence interval; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    factor = STUDENT_95[len(values) - 2] if len(values) - 2 < len(STUDENT_95) else NORMAL_95
    return float(factor * statistics.stdev(values) / math.sqrt(len(values)))


class CellFile:
    """The cells of a file. `add` appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cells: dict[CellKey, Cell] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                cell = parse_cell(line)
                if cell is not None:
                    self._cells[cell.key] = cell

    def get(self, key: CellKey) -> Cell | None:
        """The cell, or None where it has not been measured."""
        return self._cells.get(key)

    def add(self, cell: Cell) -> None:
        """Keeps a cell, on disk too. What an interrupted write has left there does not swallow it."""
        self._cells[cell.key] = cell
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            torn = not file.read().endswith(b"\n") and file.tell() > 0
            file.write((b"\n" if torn else b"") + json.dumps(cell.as_json()).encode() + b"\n")


def parse_cell(line: str | bytes) -> Cell | None:
    """The cell of a line; None where the line is torn, or of another version of this file."""
    try:
        entry = json.loads(line)
        found = entry["figures"]
        return Cell(
            CellKey(**entry["key"]),
            None if found is None else Figures(**{**found, "texts": tuple(found["texts"])}),
            entry["refused"],
            entry["took_s"],
            entry["sources"],
        )
    except (ValueError, TypeError, KeyError):
        return None


def digest_of(parts: Iterable[bytes]) -> str:
    """A short name of some content."""
    content = hashlib.sha256()
    for part in parts:
        content.update(hashlib.sha256(part).digest())
    return content.hexdigest()[:12]
