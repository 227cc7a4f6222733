"""Whether drafting on while a verdict is out pays here: by trying both and comparing tokens per millisecond.

On machines of their own drafters look ahead for nothing. Where they share processors with the target they slow it
down, by how much no time model of either side says. So where drafters are seen to slow one another down,
which says that they share processors, both ways are tried, the better one is kept, and the other is tried again for a
short while now and then; elsewhere nothing is, since a trial's scatter costs more than it could find. One `Hindsight`
per number of requests, in powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TRIAL = 48
STAY = 640
FADE = 0.5
MARGIN = 1.06  # a trial's tokens per round scatter by as much


@dataclass(slots=True)
class Arm:
    """One way: faded sums over rounds."""

    tokens: float = 0.0
    ms: float = 0.0

    @property
    def pace(self) -> float:
        """Tokens per millisecond of a round."""
        return self.tokens / self.ms if self.ms else 0.0

    def fade(self) -> None:
        """What was seen before counts half from now on."""
        self.tokens *= FADE
        self.ms *= FADE


@dataclass(slots=True)
class Hindsight:
    """`on` says whether to look ahead now."""

    on: bool = True
    arms: dict[bool, Arm] = field(default_factory=lambda: {True: Arm(), False: Arm()})
    _left: int = STAY
    _better: bool | None = None
    _without: bool = False

    def note(self, ahead: bool, token_count: int, round_ms: float, shared: bool = False) -> None:
        """A request's round, planned with or without lookahead, committed so many tokens and took so long. `shared`
        says that drafters seem to share processors."""
        arm = self.arms[ahead]
        arm.tokens += token_count
        arm.ms += round_ms
        self._left -= ahead is self.on
        untried = self._better is None and self.on and not self._without
        if shared and self._left <= STAY - TRIAL if untried else self._left <= 0:
            self._next()

    def _next(self) -> None:
        """A stretch is over: what comes next is the better way for long, or the other for a short trial."""
        if self._better is None and not self._without:
            self.arms = {True: Arm(), False: Arm()}  # the first rounds of all told of learning, not of lookahead
            self.on, self._left, self._without = False, TRIAL, True
            return
        if self._better is None and not self.on:
            self.on, self._left = True, TRIAL
            return
        if self._better is None or self.on is not self._better:
            self._better = self._choose()
            self.on, self._left = self._better, STAY
            return
        self.on, self._left = not self._better, TRIAL
        self.arms[self.on].fade()
        self.arms[not self.on].fade()

    def _choose(self) -> bool:
        ahead, behind = self.arms[True].pace, self.arms[False].pace
        return ahead > behind if self._better is False else ahead * MARGIN >= behind
