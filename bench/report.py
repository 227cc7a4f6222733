"""What a benchmark found, as tables for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from rich.table import Table

from bench.measuring import Load, Measured
from bench.scheduler import HandleTimes
from cosine.cli.demo.measuring import BF16_MARGIN, FAILED, IDENTICAL, Likeness

PLAIN = "plain"
COLUMNS = ("system", "tokens/s", "x plain", "least-most", "tokens/verdict", "overhead", "allowed", "first ms")


@dataclass(slots=True)
class Report:
    """All runs: per load and system, one measurement per run, in order."""

    threads: int
    token_count: int
    runs: dict[Load, dict[str, list[Measured]]] = field(default_factory=dict)
    likenesses: dict[Load, dict[str, list[Likeness]]] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    handle_times: HandleTimes | None = None

    LEAN: ClassVar[tuple[str, ...]] = ("gateway", "scheduler", "fusion")

    def add(self, load: Load, system: str, measured: Measured) -> None:
        """One more run."""
        self.runs.setdefault(load, {}).setdefault(system, []).append(measured)

    def ratio(self, load: Load, system: str, other: str) -> tuple[float, float, float]:
        """Median, least and largest ratio of tokens/s, run by run."""
        pairs = zip(self.runs[load][system], self.runs[load][other], strict=True)
        ratios = [mine.tokens_per_s / theirs.tokens_per_s for mine, theirs in pairs]
        return statistics.median(ratios), min(ratios), max(ratios)

    def tables(self) -> Iterator[Table]:
        """One table per load."""
        for load, systems in self.runs.items():
            table = Table(title=f"{load.label} ({len(systems[PLAIN])} runs, medians)", title_justify="left")
            for name in COLUMNS:
                table.add_column(name, justify="left" if name == "system" else "right", no_wrap=True)
            for system in systems:
                table.add_row(*self._row(load, system))
            yield table

    def _row(self, load: Load, system: str) -> list[str]:
        runs = self.runs[load][system]
        middle, least, most = self.ratio(load, system, PLAIN)
        cells = [system, f"{_median(runs, 'tokens_per_s'):.1f}", f"{middle:.2f}", f"{least:.2f}-{most:.2f}"]
        if system.startswith("transformers"):
            return [*cells, "", "", "", ""]
        overhead_ms = _median(runs, "overhead_ms")
        told = load.clients == 1 and overhead_ms > 0  # passes of stretches overlap: their sum exceeds the wall
        overhead = f"{overhead_ms:.2f}" if told else ""
        allowed = f"{1 + 0.7 * _median(runs, 'exchanges'):.2f}" if told else ""
        return [
            *cells,
            f"{_median(runs, 'acceptance'):.2f}",
            overhead,
            allowed,
            f"{_median(runs, 'first_token_ms'):.0f}",
        ]

    def notes(self) -> Iterator[str]:
        """Figures beside the tables."""
        yield f"{self.threads} verifier thread(s); held-out prompts, {self.token_count} new tokens each"
        for load, systems in self.runs.items():
            for system, likenesses in self.likenesses.get(load, {}).items():
                yield f"{load.label}: {system}: {_told(likenesses)}"
            if load not in self.likenesses:
                same = [system for system in systems if self._same_text(load, system)]
                yield f"{load.label}: every text is plain decoding's: {', '.join(same)}"
            if "transformers, assisted" in systems and "cosine" in systems:
                middle, least, most = self.ratio(load, "cosine", "transformers, assisted")
                yield f"{load.label}: cosine is {middle:.2f} ({least:.2f}-{most:.2f}) times assisted transformers"
        if self.handle_times is not None:
            times = self.handle_times
            yield f"scheduler with 64 live requests: {times.median_us:.0f} us per event (mean {times.mean_us:.0f})"
        if self.memory_mb:
            yield "resident MB: " + ", ".join(f"{role} {size:.0f}" for role, size in self.memory_mb.items())

    def _same_text(self, load: Load, system: str) -> bool:
        pairs = zip(self.runs[load][system], self.runs[load][PLAIN], strict=True)
        return all(mine.texts == theirs.texts for mine, theirs in pairs)

    def as_json(self) -> dict[str, Any]:
        """Everything but the texts."""
        return {
            "threads": self.threads,
            "token_count": self.token_count,
            "loads": [
                {
                    "clients": load.clients,
                    "requests": load.request_count,
                    "temperature": load.temperature,
                    "systems": {
                        system: {
                            "ratio_to_plain": self.ratio(load, system, PLAIN)[0],
                            "same_text": self._same_text(load, system),
                            "likeness": [asdict(one) for one in self.likenesses.get(load, {}).get(system, ())],
                            "runs": [
                                {key: value for key, value in asdict(run).items() if key != "texts"} for run in runs
                            ],
                        }
                        for system, runs in systems.items()
                    },
                }
                for load, systems in self.runs.items()
            ],
            "memory_mb": self.memory_mb,
            "handle_times": None if self.handle_times is None else asdict(self.handle_times),
        }


def _told(likenesses: list[Likeness]) -> str:
    """What came of comparing texts with plain decoding's of the same run."""
    parted = [likeness for likeness in likenesses if likeness.kind != IDENTICAL]
    same = f"{len(likenesses) - len(parted)} of {len(likenesses)} texts are plain decoding's"
    if not parted:
        return same
    failed = sum(likeness.kind == FAILED for likeness in parted)
    widest = max(likeness.gap for likeness in parted)
    near = f"{len(parted) - failed} part at a near-tie (widest gap {widest:.3f}, allowed {BF16_MARGIN})"
    return f"{same}, {near}, {failed} fail"


def _median(runs: list[Measured], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))
