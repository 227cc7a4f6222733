"""A whole mesh in virtual time: cells of real schedulers and fusions, and drafters that all cells share.

The gateway deals requests to cells with room, in their order, and holds every committed token against the recorded
text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cosine.core import events as ev
from cosine.core.sampling import Sampling
from cosine.sim.cell import Cell, Place
from cosine.sim.clock import Clock
from cosine.sim.library import Library, Script
from cosine.sim.peers import Shape, drafter_peers
from cosine.sim.profile import Profile
from cosine.sim.verifier import WrongText

GATEWAY = "gateway"
ATTEMPT = 1


@dataclass(slots=True, eq=False)
class Request:
    """One request and what became of it; times in seconds, -1 while they have not come."""

    request_id: str
    script: Script
    new_count: int
    sampling: Sampling
    came: float
    token_count: int = 0
    first_at: float = -1.0
    done_at: float = -1.0
    figures: ev.Figures | None = None


class Mesh:
    """All peers. `strategy` is what requests ask for that are dealt from now on; `may_guess` says that verifiers may
    see drafted context."""

    def __init__(
        self, profile: Profile, library: Library, strategy: str, may_guess: bool, shape: Shape | None = None
    ) -> None:
        self.clock = Clock()
        self.shape = shape or Shape()
        self.library, self.strategy = library, strategy
        self.drafters = drafter_peers(self.clock, profile, library, self.shape)
        place = Place(self.clock, profile, self.shape, library, self.drafters, may_guess)
        self.cells = [Cell(number, place, self.progress) for number in range(self.shape.cell_count)]
        self.requests: dict[str, Request] = {}
        self.queue: deque[Request] = deque()
        self.on_done: Callable[[Request], None] = lambda request: None
        self.token_count = 0
        self.done_count = 0
        self._accepted_count = 0
        self._withdrawn: set[str] = set()

    def submit(self, request: Request) -> None:
        """A client's request; it waits until a scheduler has room."""
        self.requests[request.request_id] = request
        self.queue.append(request)
        self._deal()

    def withdraw(self, request_id: str) -> None:
        """The request's client has gone; unknown ones are ignored."""
        if self.requests.pop(request_id, None) is None:
            return
        self._withdrawn.add(request_id)
        self.queue = deque(request for request in self.queue if request.request_id != request_id)
        for cell in self.cells:
            cell.tell(ev.RequestLeft(request_id, ATTEMPT))

    def run(self, until: Callable[[], bool]) -> None:
        """Lets time pass until the condition holds. Raises AssertionError where nothing is left that could happen."""
        while not until():
            if not self.clock.step():
                raise AssertionError(f"nothing is under way, and yet {len(self.requests)} requests wait")

    def progress(self, progress: ev.Progress) -> None:
        """What a scheduler tells the gateway. Raises WrongText where it is not the recorded text."""
        if progress.request_id in self._withdrawn:
            return
        request = self.requests[progress.request_id]
        script = request.script
        if progress.error is not None:
            raise WrongText(f"request {request.request_id} failed: {progress.error}") from progress.error
        start = script.prompt_length + request.token_count
        if (
            progress.offset != request.token_count
            or progress.token_ids != script.token_ids[start : start + len(progress.token_ids)]
        ):
            raise WrongText(f"request {request.request_id} was told other tokens than the text's at {progress.offset}")
        if progress.token_ids:
            request.token_count += len(progress.token_ids)
            self.token_count += len(progress.token_ids)
            request.first_at = self.clock.now if request.first_at < 0 else request.first_at
        request.figures = progress.figures or request.figures
        if progress.finish:
            self._finish(request)

    def accepted_count(self) -> int:
        """Drafted tokens that were committed, of requests that are done and of those that are not."""
        figures = [request.figures for request in self.requests.values() if request.figures is not None]
        return self._accepted_count + sum(entry.accepted_token_count for entry in figures)

    def _finish(self, request: Request) -> None:
        if request.token_count != request.new_count:
            raise WrongText(f"request {request.request_id} ended after {request.token_count} tokens")
        request.done_at = self.clock.now
        self._accepted_count += 0 if request.figures is None else request.figures.accepted_token_count
        del self.requests[request.request_id]
        self.done_count += 1
        self.clock.at(self.clock.now, self._deal)
        self.on_done(request)

    def _deal(self) -> None:
        while self.queue:
            cell = max(self.cells, key=lambda cell: cell.room)
            if cell.room <= 0:
                return
            cell.admit(self._admission(self.queue.popleft()))

    def _admission(self, request: Request) -> ev.Admission:
        prompt = request.script.prompt
        return ev.Admission(
            request.request_id,
            ATTEMPT,
            GATEWAY,
            prompt,
            len(prompt),
            request.new_count,
            request.sampling,
            strategy=self.strategy,
        )
