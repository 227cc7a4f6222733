"""When requests come and which text each asks for: closed loops and open ones, with no dice but a counter's hash."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from cosine.core.noise import UNIFORM_SCALE, mix
from cosine.core.sampling import GREEDY, Sampling
from cosine.sim.library import Library
from cosine.sim.mesh import Mesh, Request
from cosine.sim.profile import Profile

USUAL_BATCH = 16
USUAL_CACHED = 128
USUAL_TOKENS = 128  # as many as are recorded
CLOSED_LOADS = (1, 2, 4, 8, 16)
OPEN_LOADS = {"low": (0.3,), "high": (0.9,), "fluctuating": (0.2, 1.2)}


@dataclass(frozen=True, slots=True)
class Load:
    """`client_count` clients that each ask again as soon as they are answered; or, where that is 0, requests that come
    at random, on average `rates` per second, each of which holds for `period_s` in turn. The first `request_count`
    requests are measured, each of `new_count` tokens (or as many as its text has)."""

    name: str
    request_count: int
    client_count: int = 0
    rates: tuple[float, ...] = ()
    period_s: float = 0.0
    new_count: int = USUAL_TOKENS
    temperature: float = 0.0
    seed: int = 0

    def sampling(self, number: int) -> Sampling:
        """The rules of a request."""
        return Sampling(temperature=self.temperature, seed=number) if self.temperature else GREEDY

    def request(self, library: Library, number: int, now: float) -> Request:
        """The request that comes as number so-and-so: domains take turns, and so do the texts of each."""
        domains: dict[str, list[int]] = {}
        for script in library.scripts:
            domains.setdefault(script.domain, []).append(script.number)
        numbers = list(domains.values())[number % len(domains)]
        turn = number // len(domains) + self.seed
        script = library.scripts[numbers[turn % len(numbers)]]
        return Request(f"r{number}", script, min(self.new_count, script.new_count), self.sampling(number), now)

    def gap_s(self, number: int, now: float) -> float:
        """Seconds between a request and the next: exponential, at the rate that holds now."""
        turn = int(now / self.period_s) if self.period_s else 0
        uniform = ((mix(mix(self.seed) ^ number) >> 11) + 0.5) * UNIFORM_SCALE
        return -math.log(uniform) / self.rates[turn % len(self.rates)]


class Source:
    """Feeds a mesh; `all_done` once the measured requests are, and `on_done` hears of each. It goes on feeding until
    then, so that the last of them are served beside others as the first were."""

    def __init__(self, mesh: Mesh, load: Load, on_done: Callable[[], None] = lambda: None) -> None:
        self.measured: list[Request] = []
        self._mesh, self._load, self._on_done = mesh, load, on_done
        self._sent = 0
        self._open = load.request_count

    def start(self) -> None:
        """Sends the first requests."""
        self._mesh.on_done = self._done
        if self._load.client_count:
            for _ in range(self._load.client_count):
                self._send()
        else:
            self._arrive()

    @property
    def all_done(self) -> bool:
        return self._open == 0

    def _arrive(self) -> None:
        clock = self._mesh.clock
        clock.after(self._load.gap_s(self._sent + 1, clock.now), self._arrive)
        self._send()

    def _send(self) -> None:
        request = self._load.request(self._mesh.library, self._sent, self._mesh.clock.now)
        self._sent += 1
        if len(self.measured) < self._load.request_count:
            self.measured.append(request)
        self._mesh.submit(request)

    def _done(self, request: Request) -> None:
        if int(request.request_id[1:]) < self._load.request_count:
            self._open -= 1
            self._on_done()
        if self._load.client_count:
            self._send()


def plain_tokens_per_s(profile: Profile, batch: int = USUAL_BATCH) -> float:
    """What plain decoding of so many requests at a time commits: the measure of open loads."""
    forward_ms = profile.verifier.forward_ms(batch, batch * USUAL_CACHED)
    return 1000 * profile.verifier_count * batch / (forward_ms + 2 * profile.verifier_link.latency_ms)


def closed_load(client_count: int, request_count: int, new_count: int = USUAL_TOKENS) -> Load:
    """So many clients."""
    return Load(f"closed-{client_count}", request_count, client_count, new_count=new_count)


def open_load(name: str, profile: Profile, request_count: int, new_count: int = USUAL_TOKENS) -> Load:
    """Poisson arrivals, `low`, `high` or `fluctuating`, as shares of what plain decoding of 16 at a time can do."""
    rates = tuple(share * plain_tokens_per_s(profile) / new_count for share in OPEN_LOADS[name])
    load = Load(f"open-{name}", request_count, rates=rates, new_count=new_count)
    return load if len(rates) == 1 else replace(load, period_s=2 * USUAL_BATCH / sum(rates))
