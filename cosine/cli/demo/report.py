"""The demo's figures: per domain and in all, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from cosine.cli.demo.measuring import FAILED, IDENTICAL, WITHIN_MARGIN, Likeness, Run

WORST_LAST = (IDENTICAL, WITHIN_MARGIN, FAILED)


@dataclass(slots=True)
class Pair:
    """One prompt with the mesh's strategy and with plain decoding, and how the two texts relate."""

    mesh: Run
    plain: Run
    likeness: Likeness


@dataclass(slots=True)
class Row:
    """A line of the table: some pairs, and the seconds they took in all."""

    name: str
    pairs: list[Pair]
    seconds: float
    plain_seconds: float

    @property
    def tokens(self) -> int:
        return sum(len(pair.mesh.token_ids) for pair in self.pairs)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def plain_tokens_per_s(self) -> float:
        return sum(len(pair.plain.token_ids) for pair in self.pairs) / self.plain_seconds

    @property
    def ratio(self) -> float:
        return self.tokens_per_s / self.plain_tokens_per_s

    @property
    def acceptance_length(self) -> float:
        """Committed tokens per verdict."""
        rounds = sum(pair.mesh.speculation.round_count for pair in self.pairs)
        accepted = sum(pair.mesh.speculation.accepted_token_count for pair in self.pairs)
        return (accepted + rounds) / rounds if rounds else 0.0

    @property
    def drafters(self) -> list[str]:
        """Who took part, in order of first use."""
        return list(dict.fromkeys(name for pair in self.pairs for name in pair.mesh.speculation.drafters))

    @property
    def text(self) -> str:
        """The worst that can be said of any of the texts."""
        return max((pair.likeness.kind for pair in self.pairs), key=WORST_LAST.index)

    @property
    def widest_gap(self) -> float:
        return max(pair.likeness.gap for pair in self.pairs)


@dataclass(slots=True)
class Report:
    """All that was measured. `facts` says on what: models, dtype, peers, seconds."""

    alone: list[Pair]
    at_once: Row
    margin: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        names = dict.fromkeys(pair.mesh.prompt.domain for pair in self.alone)
        by_name = {name: [pair for pair in self.alone if pair.mesh.prompt.domain == name] for name in names}
        return [*(_row(name, pairs) for name, pairs in by_name.items()), _row("all", self.alone), self.at_once]

    @property
    def is_fine(self) -> bool:
        return all(row.text != FAILED for row in self.rows)

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title="cosine against plain decoding, same mesh, same run", title_justify="left")
        for heading in ("prompts", "tokens", "tokens/s", "plain tokens/s", "ratio", "tokens per verdict"):
            table.add_column(heading, justify="left" if heading == "prompts" else "right", min_width=6)
        table.add_column("drafters", overflow="fold")
        table.add_column("text", no_wrap=True)
        for row in self.rows:
            if row.name == "all":
                table.add_section()
            table.add_row(*_cells(row))
        return table

    def caption(self) -> str:
        """What the last column means."""
        if self.margin == 0:
            return "text: compared with plain decoding token for token"
        gap = max(row.widest_gap for row in self.rows)
        return (
            f"text: compared with plain decoding; where two bfloat16 runs part, the target must rate both tokens "
            f"within {self.margin:g} nats of each other (widest here: {gap:.3f})"
        )

    def as_json(self) -> dict[str, Any]:
        """The same figures for programs."""
        return {
            **self.facts,
            "margin_nats": self.margin,
            "is_fine": self.is_fine,
            "rows": [_row_as_json(row) for row in self.rows],
        }


def _row(name: str, pairs: Sequence[Pair]) -> Row:
    seconds = sum(pair.mesh.seconds for pair in pairs)
    return Row(name, list(pairs), seconds, sum(pair.plain.seconds for pair in pairs))


def _cells(row: Row) -> tuple[str, ...]:
    colour = {IDENTICAL: "green", WITHIN_MARGIN: "yellow", FAILED: "red"}[row.text]
    return (
        row.name,
        str(row.tokens),
        f"{row.tokens_per_s:.1f}",
        f"{row.plain_tokens_per_s:.1f}",
        f"{row.ratio:.2f}x",
        f"{row.acceptance_length:.2f}",
        ", ".join(row.drafters) or "none",
        f"[{colour}]{row.text}[/]",
    )


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "prompts": row.name,
        "prompt_count": len(row.pairs),
        "token_count": row.tokens,
        "tokens_per_s": row.tokens_per_s,
        "plain_tokens_per_s": row.plain_tokens_per_s,
        "ratio": row.ratio,
        "acceptance_length": row.acceptance_length,
        "drafters": row.drafters,
        "text": row.text,
        "parted": [
            {"domain": pair.mesh.prompt.domain, "position": pair.likeness.position, "gap_nats": pair.likeness.gap}
            for pair in row.pairs
            if pair.likeness.kind != IDENTICAL
        ],
    }
