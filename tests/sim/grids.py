"""Settings of the papers of DSI and PipeInfer in virtual time: one request, nothing lost on the way, passes of fixed
length, and drafts that are right as often as a setting says.

Scheduler, fusion and devices are the simulator's; only the text and its guesses are made up.
`python -m tests.sim.grids` prints the tables of docs/grids.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean

import numpy as np

from cosine.core.events import BatchItem, SessionVerdict
from cosine.core.noise import UNIFORM_SCALE, mix
from cosine.core.sampling import GREEDY
from cosine.core.strategy import parse
from cosine.sim.device import Device, Job
from cosine.sim.library import KEY_LENGTH, Library
from cosine.sim.mesh import Mesh, Request
from cosine.sim.peers import VerifierPeer
from cosine.sim.profile import DrafterDevice, Link, Profile, VerifierDevice
from cosine.sim.recording import Recording, Text, Variant

VOCAB_SIZE = 2048
TOKEN_COUNT = 128
TARGET_MS = 100.0
CONFIDENCE_MIN = 0.001  # a recording's zero means that there is no such guess
NOWHERE = Link(0.0, 1e9)

ACCEPTANCES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
LOOKAHEADS = range(1, 11)
SEEDS = range(4)
TARGET_COUNT = 7
STAGE_COUNT = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """`acceptance` is the chance of each drafted token to be the target's, given that those before it were; a pass of
    the drafter takes `share` of one of the target. There are `target_count` targets, each on a machine of its own that
    takes one pass at a time; or, with `stage_count`, whose passes follow one another as in a pipeline of so many."""

    acceptance: float
    share: float
    target_count: int = 1
    stage_count: int = 0
    seed: int = 0


@cache
def hits(acceptance: float, seed: int) -> tuple[bool, ...]:
    """Per position of the text, whether the drafter's guess there is right. Of two acceptances with one seed the higher
    is right wherever the lower is."""
    uniforms = (((mix(mix(seed) ^ position) >> 11) + 0.5) * UNIFORM_SCALE for position in range(TOKEN_COUNT))
    return tuple(uniform < acceptance for uniform in uniforms)


@cache
def made_up(acceptance: float, seed: int) -> Library:
    """One text, and one drafter that is as sure of each of its guesses as it is right on average."""
    prompt = tuple(mix(~position) % VOCAB_SIZE for position in range(KEY_LENGTH))
    truth = tuple(mix(position) % VOCAB_SIZE for position in range(TOKEN_COUNT))
    guesses = [
        token if hit else (token + 1) % VOCAB_SIZE for token, hit in zip(truth, hits(acceptance, seed), strict=True)
    ]
    shape = (1, TOKEN_COUNT, 1)
    recording = Recording(
        Variant.GREEDY,
        VOCAB_SIZE,
        ("drafter",),
        (Text("made up", seed, prompt, truth),),
        np.array(guesses, dtype=np.uint16).reshape(shape),
        np.full(shape, max(CONFIDENCE_MIN, acceptance), dtype=np.float16),
        np.ones(shape[:2], dtype=np.float16),
    )
    return Library(recording)


def played(strategy: str, setting: Setting) -> Mesh:
    """The mesh once the request is done. It has compared every committed token with the text."""
    park = Profile(
        "made up",
        "a setting of a grid",
        1.0,
        VerifierDevice("target", 1, 1.0, TARGET_MS, 0.0, 0.0),
        {"drafter": DrafterDevice("drafter", 1, 1.0, setting.share * TARGET_MS, 0.0, 0.0)},
        NOWHERE,
        NOWHERE,
        setting.target_count,
    )
    library = made_up(setting.acceptance, setting.seed)
    mesh = Mesh(park, library, strategy, parse(strategy).runs > 1)
    for peer in targets(mesh):
        if setting.stage_count:
            device = peer.device
            peer.device = Pipeline(
                device.clock, device.compute, device.give_up, device.close, stage_count=setting.stage_count
            )
    mesh.submit(Request("r0", library.scripts[0], TOKEN_COUNT, GREEDY, 0.0))
    mesh.run(lambda: mesh.done_count == 1)
    return mesh


def targets(mesh: Mesh) -> Sequence[VerifierPeer]:
    """All targets of a mesh."""
    return [peer for cell in mesh.cells for peer in cell.verifiers.values()]


@cache
def passes_per_token(strategy: str, setting: Setting) -> float:
    """Time per token, in passes of the target: plain decoding takes 1."""
    return played(strategy, setting).clock.now * 1000 / TARGET_MS / TOKEN_COUNT


def speculative_passes_per_token(setting: Setting, lookahead: int) -> float:
    """What speculative sampling takes by its definition: drafts of `lookahead` tokens and passes of the target by
    turns; the prompt's pass brings the first token, and the last is never drafted."""
    hit = hits(setting.acceptance, setting.seed)
    position, passes = 1, 1.0
    while position < TOKEN_COUNT:
        length = min(lookahead, TOKEN_COUNT - 1 - position)
        drafted = hit[position : position + length]
        position += drafted.index(False) + 1 if False in drafted else length + 1
        passes += 1.0 + length * setting.share
    return passes / TOKEN_COUNT


def best_speculative(setting: Setting) -> float:
    """The same at the lookahead that suits the setting best."""
    return min(speculative_passes_per_token(setting, lookahead) for lookahead in LOOKAHEADS)


@dataclass(slots=True, eq=False)
class Pass:
    """A pass under way in a pipeline, and when it leaves it."""

    job: Job[BatchItem, SessionVerdict]
    verdicts: list[SessionVerdict]
    seconds: float
    leaves: float
    grain_s: float


@dataclass(slots=True)
class Pipeline(Device[BatchItem, SessionVerdict]):
    """A target whose layers are spread over stages: a pass takes as long as elsewhere, the next one enters a stage
    later. They leave in their order. A cancelled one goes on empty: it frees its stage and its place at its next grain.
    """

    stage_count: int = STAGE_COUNT
    entry_free_at: float = 0.0
    passes: deque[Pass] = field(default_factory=deque)

    def add(self, job: Job[BatchItem, SessionVerdict]) -> None:
        """Takes a job; it enters when the first stage is free."""
        self._queue.append(job)
        self._go_on()

    def cancel(self, owner: str, work_ids: Sequence[int]) -> None:
        """Nobody waits for these any more. What they leave in the cache is settled at once, before later ones enter."""
        for job in self._queue:
            job.cancelled |= job.owner == owner and job.work_id in work_ids
        for entry in self.passes:
            if entry.job.owner == owner and entry.job.work_id in work_ids and not entry.job.cancelled:
                entry.job.cancelled = True
                entry.verdicts = self.give_up(entry.job.items)
                entry.leaves = min(entry.leaves, self.clock.now + entry.grain_s)
                self.clock.at(entry.leaves, self._go_on)
        if self.passes and self.passes[-1].job.cancelled:
            self.entry_free_at = min(self.entry_free_at, self.clock.now + self.passes[-1].grain_s)

    def _go_on(self) -> None:
        while self.passes and self.passes[0].leaves <= self.clock.now:
            left = self.passes.popleft()
            left.job.answer(left.verdicts, left.seconds)
        while self._queue and self._may_go(self._queue[0]):
            self._begin(self._queue.popleft())

    def _may_go(self, job: Job[BatchItem, SessionVerdict]) -> bool:
        if self.clock.now >= self.entry_free_at or job.closing or job.cancelled:
            return True
        self.clock.at(self.entry_free_at, self._go_on)
        return False

    def _begin(self, job: Job[BatchItem, SessionVerdict]) -> None:
        if job.closing:
            self.close(job.closing)
        elif job.cancelled:
            job.answer(self.give_up(job.items), 0.0)
        else:
            run = self.compute(job.items)
            leaves = self.clock.now + run.seconds
            self.passes.append(Pass(job, run.results, run.seconds, leaves, run.grain_s))
            self.entry_free_at = self.clock.now + run.seconds / self.stage_count
            self.clock.at(leaves, self._go_on)


def gains(strategy: str, settings: Sequence[Setting], preset: int) -> tuple[float, float, float]:
    """How many times as fast as plain decoding, as speculative sampling with drafts of `preset` tokens, and as that at
    the lookahead that suits it best: in all settings together, which differ in their seeds."""
    passes = fmean(passes_per_token(strategy, setting) for setting in settings)
    speculative = {
        lookahead: fmean(speculative_passes_per_token(setting, lookahead) for setting in settings)
        for lookahead in LOOKAHEADS
    }
    return 1.0 / passes, speculative[preset] / passes, min(speculative.values()) / passes


def as_table(strategy: str, preset: int, target_count: int, stage_count: int) -> str:
    """A row per acceptance rate, a column per drafter."""
    lines = ["| | " + " | ".join(f"{share:g}" for share in SHARES) + " |", "|---" * (len(SHARES) + 1) + "|"]
    for acceptance in ACCEPTANCES:
        cells = []
        for share in SHARES:
            settings = [Setting(acceptance, share, target_count, stage_count, seed) for seed in SEEDS]
            cells.append(", ".join(f"{gain:.2f}" for gain in gains(strategy, settings, preset)))
        lines.append(f"| {acceptance:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the grids: how many times as fast as `plain`, as `vanilla`, and as `vanilla` at its best lookahead."""
    print(f"dsi, {TARGET_COUNT} targets, vanilla with drafts of 5\n")
    print(as_table("dsi", 5, TARGET_COUNT, 0))
    print(f"\npipeinfer, a target of {STAGE_COUNT} stages, vanilla with drafts of 4\n")
    print(as_table("pipeinfer", 4, 1, STAGE_COUNT))
    print("\npipeinfer, a target of one pass at a time, vanilla with drafts of 4\n")
    print(as_table("pipeinfer", 4, 1, 0))


if __name__ == "__main__":
    main()
