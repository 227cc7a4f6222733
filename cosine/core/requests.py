"""The requests a scheduler holds, by session and by the id their gateway knows them by; and those that came too early.

Part of the scheduler. It knows who came and what is known of their kind; verifiers, fusion, rounds and alarms are
unknown here.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosine.core import routing
from cosine.core.config import SchedulerConfig
from cosine.core.events import Admission, RequestCame
from cosine.core.knowledge import Knowledge
from cosine.core.live import Live
from cosine.core.pace import HitRate, Pace
from cosine.core.strategy import Strategy


class Requests:
    """Live requests; a session is one attempt at a request, and of a request only the latest attempt is held."""

    def __init__(self, config: SchedulerConfig, pace: Pace) -> None:
        self.knowledge = Knowledge(config.session_prefix)
        self._prefix = config.session_prefix
        self._pace = pace
        self._scores = routing.SharedScores()
        self._by_session: dict[str, Live] = {}
        self._by_request: dict[str, Live] = {}

    def __len__(self) -> int:
        return len(self._by_session)

    def __iter__(self) -> Iterator[Live]:
        """Over those held now, whoever comes or goes meanwhile."""
        return iter(list(self._by_session.values()))

    def __contains__(self, live: Live) -> bool:
        return self._by_session.get(live.session_id) is live

    def enter(self, admission: Admission, strategy: Strategy, number: int, now: float) -> Live:
        """A request comes; `number` makes its session's id unique. An older attempt must have left before."""
        assert admission.request_id not in self._by_request
        prompt = admission.token_ids[: admission.prompt_length]
        priors = self.knowledge.priors(prompt) if strategy.priors else None
        route = routing.Route(priors or self._scores)
        live = Live(admission, f"{self._prefix}-{number}", strategy, route, [*admission.token_ids], now)
        live.priors = priors
        live.hit_rate = HitRate(priors.hit_rate if priors else self._pace.hit_rate)
        live.figures.strategy = strategy.name
        self._by_session[live.session_id] = self._by_request[admission.request_id] = live
        return live

    def leave(self, live: Live) -> None:
        """A request goes; one that has gone already is ignored."""
        if live in self:
            del self._by_session[live.session_id]
            del self._by_request[live.admission.request_id]

    def session(self, session_id: str) -> Live | None:
        """The request of a session; None where it has gone."""
        return self._by_session.get(session_id)

    def named(self, request_id: str) -> Live | None:
        """The attempt at a request that is held."""
        return self._by_request.get(request_id)


class Early:
    """Requests that demand more peers than the mesh has had, held while its peers are still coming: until none has
    been new for `settle_s`, at `settled_at`."""

    def __init__(self, settle_s: float) -> None:
        self.settled_at = 0.0
        self._settle_s = settle_s
        self._seen_count = 0
        self._by_request: dict[str, RequestCame] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def note_peers(self, seen_count: int, now: float) -> None:
        """So many peers there have been."""
        if seen_count > self._seen_count:
            self._seen_count, self.settled_at = seen_count, now + self._settle_s

    def hold(self, event: RequestCame) -> None:
        """Keeps a request, unless a later attempt at it is here."""
        older = self._by_request.get(event.admission.request_id)
        if older is None or older.admission.attempt < event.admission.attempt:
            self._by_request[event.admission.request_id] = event

    def leave(self, request_id: str, attempt: int) -> None:
        """Its client does not want it any more."""
        event = self._by_request.get(request_id)
        if event is not None and event.admission.attempt <= attempt:
            del self._by_request[request_id]

    def forget_gateway(self, gateway: str) -> None:
        """Nobody is there to hear of its requests."""
        self._by_request = {name: it for name, it in self._by_request.items() if it.admission.gateway != gateway}

    def pop_all(self) -> list[RequestCame]:
        """All of them, in the order in which they came; they are held no more."""
        events, self._by_request = list(self._by_request.values()), {}
        return events
