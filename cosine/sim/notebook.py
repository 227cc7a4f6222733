"""Points of sweeps in a file: each is written when it is done, so that a sweep that was interrupted goes on.

What decides the points stands beside them. Where that has changed since (other code, another profile, other texts or
another seed) the points are not taken up; the file is put aside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cosine.core
import cosine.sim
from cosine.sim.sweep import Point, Trial

PRESENTING = frozenset({"__main__.py", "plots.py", "report.py", "notebook.py", "knee.py"})  # of `cosine/sim`


class Notebook:
    """`settings` is all that decides the points; None of them is taken from a file with others."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._settings = settings
        self._sweeps: dict[str, list[Point]] = {}
        if not path.exists():
            return
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("settings", None) == settings:
            self._sweeps = {name: [Point(**point) for point in points] for name, points in content.items()}
        else:
            self.set_aside = path.replace(path.with_suffix(".before" + path.suffix))

    def points(self, sweep: str) -> list[Point]:
        """Those that are done, in the order in which they were."""
        return list(self._sweeps.get(sweep, ()))

    def holds(self, sweep: str, trial: Trial) -> bool:
        """True where the trial has been made."""
        return any((point.series, point.count) == (trial.series, trial.count) for point in self.points(sweep))

    def note(self, sweep: str, point: Point) -> None:
        """Writes one more down."""
        self._sweeps.setdefault(sweep, []).append(point)
        content: dict[str, Any] = {"settings": self._settings}
        content |= {name: [asdict(entry) for entry in points] for name, points in self._sweeps.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".writing")
        fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        fresh.replace(self.path)


def settings(profile: Path, recordings: Path, seed: int) -> dict[str, Any]:
    """What decides the points: a digest of the code, of the profile and of the recorded texts, and the seed."""
    core, sim = (Path(package.__path__[0]) for package in (cosine.core, cosine.sim))
    code = [*core.glob("*.py"), *(path for path in sim.glob("*.py") if path.name not in PRESENTING)]
    return {
        "code": _digest(code),
        "profile": _digest([profile]),
        "texts": _digest(recordings.glob("*.npz")),
        "seed": seed,
    }


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
