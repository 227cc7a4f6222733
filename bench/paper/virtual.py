"""Cells of the comparison in virtual time: the same requests in the same order, asked of a simulated mesh.

What it says stands beside what was measured: where the two differ, one of them is wrong. It follows `measuring`, and
plays greedy closed loops over prompts that are recorded; nothing else is known here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from pathlib import Path

from bench.paper.loads import Load
from bench.paper.measuring import warm_up_tokens
from cosine.cli.demo.models import Prompt
from cosine.cli.meshfile import PROJECT_ROOT
from cosine.core.sampling import GREEDY
from cosine.sim.library import Library
from cosine.sim.mesh import Mesh, Request
from cosine.sim.peers import Shape
from cosine.sim.profile import Profile
from cosine.sim.table import read_library

RECORDINGS = PROJECT_ROOT / "testbed" / "recordings"

Done = Callable[[Request], None]


class VirtualBench:
    """A simulated mesh, asked strategy after strategy, so that it learns from one what the measured mesh learns.
    `prompts` are texts of the library, `token_count` is per request; drafters may `run_ahead`."""

    def __init__(
        self,
        profile: Profile,
        library: Library,
        prompts: Sequence[Prompt],
        token_count: int,
        run_ahead: bool = False,
    ) -> None:
        self._mesh = Mesh(profile, library, "plain", may_guess=True, shape=Shape(run_ahead=run_ahead))
        self._mesh.on_done = self._done
        self._scripts = [library.script_of(prompt.token_ids) for prompt in prompts]
        self._kinds = len({prompt.domain for prompt in prompts})
        self._token_count = token_count
        self._waiting: dict[str, Done] = {}
        self._warm: set[str] = set()
        self._names = map(str, count())

    def token_ms(self, strategy: str, load: Load, request_count: int) -> float | None:
        """Time per token of a closed loop, the mean over requests, after a warm-up where the strategy is a new one;
        None where texts are not known, at a temperature or beyond the recorded length."""
        recorded = min(script.new_count for script in self._scripts)
        if load.is_open or load.temperature or self._token_count > recorded:
            return None
        self._mesh.strategy = strategy
        if strategy not in self._warm:
            self._warm.add(strategy)
            self._warm_up()
        served = self._closed(load, request_count)
        return statistics.fmean(1000 * (one.done_at - one.came) / one.token_count for one in served)

    def _warm_up(self) -> None:
        for index in range(-self._kinds, 0):
            self._send(index, warm_up_tokens(self._token_count), lambda request: None)
        self._mesh.run(lambda: not self._waiting)

    def _closed(self, load: Load, request_count: int) -> list[Request]:
        """The measured requests, in their order."""
        unmeasured, measured = count(-1, -1), count()
        found: dict[int, Request] = {}
        full = False

        def go_on() -> None:
            index = next(measured if full else unmeasured)
            self._send(index, self._token_count, lambda request: ended(index, request))

        def ended(index: int, request: Request) -> None:
            if 0 <= index < request_count:
                found[index] = request
            go_on()

        def begin(client: int) -> Request:
            share = self._token_count * (2 * client + 1) // (2 * load.clients)
            return self._send(next(unmeasured), max(1, share), lambda request: go_on())

        first = [begin(client) for client in range(load.clients)]
        self._mesh.run(lambda: all(request.first_at >= 0 for request in first))
        full = True
        self._mesh.run(lambda: len(found) == request_count)
        for name in list(self._waiting):
            del self._waiting[name]
            self._mesh.withdraw(name)
        return [found[index] for index in range(request_count)]

    def _send(self, index: int, token_count: int, done: Done) -> Request:
        script = self._scripts[index % len(self._scripts)]
        request = Request(next(self._names), script, token_count, GREEDY, self._mesh.clock.now)
        self._waiting[request.request_id] = done
        self._mesh.submit(request)
        return request

    def _done(self, request: Request) -> None:
        self._waiting.pop(request.request_id)(request)


@cache
def recorded_library(folder: Path = RECORDINGS) -> Library | None:
    """The recorded texts; None where there are none."""
    try:
        return read_library(folder, 0.0)
    except FileNotFoundError:
        return None
