"""A whole mesh in one process: scheduler, fusion and toy engines, joined by links that deliver when a test says so.

Each pair of peers has a link that keeps its order, as a stream does; between links any order is possible. The clock
moves only when the test moves it. What the gateway would hold is kept per request; every message is checked for gaps.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import MeshError
from cosine.core.fusion import Command as FusionCommand
from cosine.core.fusion import Fusion, Guess, Step
from cosine.core.plan import CancelSteps, CloseSessions
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.scheduler import Scheduler
from cosine.core.tree import TokenTree
from cosine.engine.base import EngineLimits
from cosine.engine.drafting import draft
from cosine.engine.toy import ToyEngine
from cosine.engine.verifying import Status, VerifyItem, verify

TARGET = "toy:seed=1"
DRAFTERS = {f"d{home}": f"toy:seed=1,own={home + 5},skill=0.8,home={home},abroad=0.4" for home in range(4)}
TWIN = {"d0": "toy:seed=1"}
LIMITS = EngineLimits(sessions_max=16, tokens_max=512)
FUSION = "fusion"
DELIVERIES_MAX = 50_000

Message = Callable[[], None]


def toy(source: str, limits: EngineLimits = LIMITS) -> ToyEngine:
    """A toy engine whose fingerprint nobody asks for."""
    return ToyEngine(source, "fingerprint", limits)


def plain_text(
    prompt: Sequence[int],
    count: int,
    sampling: Sampling = GREEDY,
    stop: Iterable[int] = (),
    target: str = TARGET,
) -> list[int]:
    """What plain decoding of the target gives, token by token, without scheduler or fusion."""
    engine, tokens, stops = toy(target), list(prompt), set(stop)
    while len(tokens) - len(prompt) < count and not (len(tokens) > len(prompt) and tokens[-1] in stops):
        item = VerifyItem("plain", 0, tuple(tokens), sampling=sampling, prompt_length=len(prompt))
        (verdict,) = verify(engine, [item])
        assert verdict.status is Status.OK
        tokens += verdict.token_ids
    return tokens[len(prompt) :]


@dataclass
class Text:
    """What the gateway holds of a request."""

    admission: ev.Admission
    tokens: list[int] = field(default_factory=list)
    finish: str = ""
    error: MeshError | None = None
    figures: ev.Figures | None = None
    left: bool = False

    @property
    def over(self) -> bool:
        return bool(self.finish or self.error or self.left)

    @property
    def plain(self) -> list[int]:
        """The text it has to become."""
        asked = self.admission
        prompt = asked.token_ids[: asked.prompt_length]
        return plain_text(prompt, asked.max_new_tokens, asked.sampling, asked.stop_token_ids)


class Mesh:
    """The machines, the links between them, and a gateway that writes down what it is told."""

    def __init__(
        self,
        drafters: Mapping[str, str] = DRAFTERS,
        config: SchedulerConfig | None = None,
        verifiers: Sequence[str] = ("verifier",),
        seats: int = 16,
    ) -> None:
        self.now = 1000.0
        self.scheduler = Scheduler(config or SchedulerConfig())
        self.fusion: Fusion | None = None
        self.verifiers: dict[str, ToyEngine] = {}
        self.drafters: dict[str, ToyEngine] = {}
        self.links: dict[tuple[str, str], deque[tuple[int, Message]]] = {}
        self.texts: dict[str, Text] = {}
        self.sent: list[ev.Command] = []
        self.answers: list[ev.Event] = []
        self.deaf: set[str] = set()
        self.cancelled: set[int] = set()
        self.wake: float | None = None
        self._sources = dict(drafters)
        self._seats = seats
        self._order = itertools.count()
        for name in verifiers:
            self.return_verifier(name)
        self.return_fusion()
        self.now += self.scheduler.config.settle_s

    # -- what a test does

    def ask(
        self,
        request_id: str,
        prompt: Sequence[int] = (0, 7, 9),
        count: int = 24,
        sampling: Sampling = GREEDY,
        strategy: str = "cosine",
        stop: Iterable[int] = (),
        deadline_s: float = 0.0,
    ) -> Text:
        """Admits a request."""
        deadline = self.now + deadline_s if deadline_s else 0.0
        admission = ev.Admission(
            request_id, 1, "gateway", tuple(prompt), len(prompt), count, sampling, frozenset(stop), strategy, deadline
        )
        text = self.texts[request_id] = Text(admission)
        self.tell(ev.RequestCame(admission))
        return text

    def ask_again(self, request_id: str) -> None:
        """The gateway takes a request up again under its next attempt, with what it holds."""
        text = self.texts[request_id]
        old = text.admission
        prompt = old.token_ids[: old.prompt_length]
        text.admission = ev.Admission(
            request_id,
            old.attempt + 1,
            old.gateway,
            (*prompt, *text.tokens),
            old.prompt_length,
            old.max_new_tokens,
            old.sampling,
            old.stop_token_ids,
            old.strategy,
            old.deadline,
        )
        self.tell(ev.RequestCame(text.admission))

    def leave(self, request_id: str) -> None:
        """The client goes away."""
        text = self.texts[request_id]
        text.left = True
        self.tell(ev.RequestLeft(request_id, text.admission.attempt))

    def run(self) -> None:
        """Delivers in the order of sending, and lets time pass where nothing is under way, until all texts are over."""
        for _ in range(DELIVERIES_MAX):
            if not self.deliver_oldest() and not self.sleep():
                break
        else:
            raise AssertionError("the mesh never comes to rest")
        lost = [name for name, text in self.texts.items() if not text.over]
        assert not lost, f"nothing is under way, and yet these wait: {lost}"

    def deliver_oldest(self) -> bool:
        """Delivers the message that was sent first."""
        heads = {link: queue[0][0] for link, queue in self.links.items() if queue}
        return bool(heads) and self.deliver(min(heads, key=heads.__getitem__))

    def deliver(self, link: tuple[str, str]) -> bool:
        """Delivers the next message of one link; it takes a millisecond."""
        _, message = self.links[link].popleft()
        message()
        self.pass_time(0.001)
        return True

    def sleep(self) -> bool:
        """Lets time pass until a machine wants it; False where none does, or every text is over."""
        wishes = [self.wake, self.fusion.next_deadline() if self.fusion else None]
        times = [time for time in wishes if time is not None]
        if not times or all(text.over for text in self.texts.values()):
            return False
        self.pass_time(max(0.0, min(times) - self.now))
        return True

    def pass_time(self, seconds: float) -> None:
        """Moves the clock and lets both machines look at it."""
        self.now += seconds
        if self.fusion is not None:
            self._fusion_says(self.fusion.tick(self.now))
        if self.wake is not None and self.wake <= self.now:
            self.wake = None
            self.tell(ev.Tick())

    def tell(self, event: ev.Event) -> None:
        """Hands the scheduler an event and carries out its commands."""
        commands = self.scheduler.handle(event, self.now)
        self.sent += commands
        for command in commands:
            self._carry_out(command)

    def lose_verifier(self, name: str) -> None:
        """A verifier dies with its cache and all that is under way to and from it."""
        if self.verifiers.pop(name, None) is not None:
            self._cut(name)
            self.tell(ev.VerifierDown(name))

    def return_verifier(self, name: str) -> None:
        """A verifier comes, or comes back, with an empty cache."""
        self._cut(name)
        self.verifiers[name] = toy(TARGET)
        self.tell(ev.VerifierUp(ev.VerifierFacts(name, sessions_max=self._seats)))

    def lose_fusion(self) -> None:
        """Fusion dies, and with it its links to the drafters, which forget what they held for it."""
        if self.fusion is not None:
            self.fusion = None
            self._cut(FUSION)
            self.drafters = {name: toy(self._sources[name]) for name in self.drafters}
            self.tell(ev.FusionDown(FUSION))

    def return_fusion(self) -> None:
        """Fusion comes, or comes back, and finds the drafters that are up."""
        self._cut(FUSION)
        self.fusion = Fusion()
        self.tell(ev.FusionUp(FUSION))
        for name in self._sources:
            self.return_drafter(name)

    def lose_drafter(self, name: str) -> None:
        """A drafter dies."""
        if self.drafters.pop(name, None) is None:
            return
        self._cut(name)
        if self.fusion is not None:
            self._fusion_says(self.fusion.drafter_down(name, self.now))
            self.tell(ev.DraftersChanged(FUSION, tuple(self.drafters)))

    def return_drafter(self, name: str) -> None:
        """A drafter comes, or comes back, with an empty cache."""
        self._cut(name)
        self.drafters[name] = toy(self._sources[name])
        if self.fusion is not None:
            self.fusion.drafter_up(name)
            self.tell(ev.DraftersChanged(FUSION, tuple(self.drafters)))

    # -- the links

    def _post(self, source: str, target: str, message: Message) -> None:
        if target not in self.deaf:
            self.links.setdefault((source, target), deque()).append((next(self._order), message))

    def _cut(self, peer: str) -> None:
        for link in [link for link in self.links if peer in link]:
            del self.links[link]

    def _carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.Progress():
                self._note(command)
            case ev.WakeAt():
                self.wake = command.time
            case ev.SendPlan() if self.fusion is not None:
                self._post("scheduler", FUSION, lambda: self._plan(command))
            case ev.SendBatch() if command.verifier in self.verifiers:
                self._post("scheduler", command.verifier, lambda: self._verify(command))
            case ev.ResetPeer():
                self.verifiers.pop(command.peer_id, None)
                self._cut(command.peer_id)
            case ev.CancelBatch() if command.verifier in self.verifiers:
                self.cancelled.add(command.batch_id)
            case ev.CloseSession():
                self._post("scheduler", command.peer_id, lambda: self._close(command))
            case _:
                raise AssertionError(f"sent to a peer that is known to be away: {command}")

    def _note(self, progress: ev.Progress) -> None:
        text = self.texts[progress.request_id]
        if progress.attempt != text.admission.attempt:
            return
        assert not text.over, f"told more after the end: {progress}"
        assert progress.offset == len(text.tokens), f"a gap or a repetition: {progress}"
        text.tokens += progress.token_ids
        text.finish, text.error, text.figures = progress.finish, progress.error, progress.figures

    # -- the workers

    def _verify(self, command: ev.SendBatch) -> None:
        if command.batch_id in self.cancelled:  # before it was begun: the verifier's caches stay as they were
            engine = self.verifiers[command.verifier]
            for item in command.items:
                word = ev.SessionVerdict(item.session_id, cached_length=len(engine.tokens(item.session_id)))
                self._answer(command.verifier, ev.VerdictCame(command.batch_id, word))
            self._answer(command.verifier, ev.BatchDone(command.batch_id))
            return
        items = [
            VerifyItem(
                item.session_id,
                item.base_length,
                item.token_ids,
                item.tree,
                item.sampling,
                item.prompt_length,
                item.prefill_only,
            )
            for item in command.items
        ]
        for verdict in verify(self.verifiers[command.verifier], items):
            word = ev.SessionVerdict(
                verdict.session_id,
                verdict.token_ids,
                verdict.nodes,
                verdict.cached_length,
                missed=verdict.status is Status.CACHE_MISS,
                refused=verdict.reason,
            )
            self._answer(command.verifier, ev.VerdictCame(command.batch_id, word, 1000))
        self._answer(command.verifier, ev.BatchDone(command.batch_id))

    def _plan(self, command: ev.SendPlan) -> None:
        assert self.fusion is not None
        self._fusion_says(self.fusion.plan(command.plan, self.now))

    def _fusion_says(self, commands: Iterable[FusionCommand]) -> None:
        for command in commands:
            if isinstance(command, Step):
                self._post_step(command)
                continue
            if isinstance(command, CancelSteps):
                continue
            if isinstance(command, CloseSessions):
                if command.drafter in self.drafters:
                    self._post_close(command)
                continue
            for drafted in command.results:
                self._answer(FUSION, ev.TreeCame(command.round_id, drafted))
            self._answer(FUSION, ev.PlanDone(command.round_id))

    def _post_step(self, step: Step) -> None:
        self._post(FUSION, step.drafter, lambda: self._draft(step))

    def _draft(self, step: Step) -> None:
        guesses = draft_step(self.drafters[step.drafter], step)
        self._post(step.drafter, FUSION, lambda: self._candidates(step, guesses))

    def _candidates(self, step: Step, guesses: list[Guess]) -> None:
        assert self.fusion is not None
        self._fusion_says(self.fusion.candidates(step.step_id, guesses, 1000, self.now))

    def _answer(self, source: str, event: ev.Event) -> None:
        self.answers.append(event)
        self._post(source, "scheduler", lambda: self.tell(event))

    def _close(self, command: ev.CloseSession) -> None:
        if command.peer_id in self.verifiers:
            self.verifiers[command.peer_id].close([command.session_id])
        elif self.fusion is not None:
            self._fusion_says(self.fusion.close([command.session_id]))

    def _post_close(self, command: CloseSessions) -> None:
        self._post(FUSION, command.drafter, lambda: self.drafters[command.drafter].close(command.session_ids))


def draft_step(engine: ToyEngine, step: Step) -> list[Guess]:
    """A drafter's answer to a step."""
    return [
        Guess(
            result.session_id,
            result.tree if result.status is Status.OK else None,
            missed=result.status is Status.CACHE_MISS,
        )
        for result in draft(engine, step.items)
    ]


def held_sessions(engine: ToyEngine, session_ids: Iterable[str]) -> set[str]:
    """Sessions of these that an engine holds tokens of."""
    return {session_id for session_id in session_ids if engine.tokens(session_id)}


def paths(tree: TokenTree) -> dict[tuple[int, ...], int]:
    """Node by the tokens on the way to it: what a tree is, whatever the order of its nodes."""
    found: dict[tuple[int, ...], int] = {}
    way: list[tuple[int, ...]] = []
    for node, (parent, token) in enumerate(zip(tree.parents, tree.token_ids, strict=True)):
        way.append((*(way[parent] if parent >= 0 else ()), token))
        assert way[node] not in found, "a token stands twice below one parent"
        found[way[node]] = node
    return found
