"""Measures cells: meshes one after the other, on each all strategies whose money buys the same hardware.

Beside every cell that it can replay, the simulator says what it makes of the same requests.

A strategy that the mesh refuses, a mesh that does not start and a cell that takes too long become refused cells; the
others go on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.paper.cells import Cell, CellFile, CellKey, digest_of, figures
from bench.paper.loads import Load, arrivals, capacity_per_s
from bench.paper.measuring import Bench
from bench.paper.park import free_ports, mesh_spec, workers
from bench.paper.virtual import VirtualBench, recorded_library
from cosine.cli.demo.models import testbed_prompts
from cosine.cli.meshfile import PROJECT_ROOT, read_testbed
from cosine.cli.processes import ForkServer
from cosine.cli.supervisor import Mesh, fork_server
from cosine.client.async_client import AsyncClient
from cosine.core.errors import BadRequest, MeshError
from cosine.core.strategy import parse
from cosine.sim.profile import Profile, equal_cost

ARRIVALS_SEED = 100
PROMPTS_PER_DOMAIN = 12  # as many as are recorded
MEASURED_PACKAGES = ("cosine", "services")


@dataclass(frozen=True, slots=True)
class Entrant:
    """A strategy's text, its loads, and the strategy whose money's worth of hardware it runs on (empty: its own)."""

    strategy: str
    loads: tuple[Load, ...]
    park: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: tokens per request, prompts per domain in a closed loop, seconds of arrivals (of the
    profile's time) in an open one; how slow the motion is (None: as the load needs), after how many real seconds a cell
    is given up, and whether drafters run ahead."""

    token_count: int
    prompt_count: int
    open_s: float
    time_scale: float | None
    cell_timeout_s: float
    run_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A cell that is to be measured."""

    key: CellKey
    load: Load


@dataclass(frozen=True, slots=True)
class Group:
    """Cells of one mesh, its hardware, and how slow its motion is."""

    park: Profile
    time_scale: float
    tasks: list[Task]


class Runner:
    """All cells of one profile. `note` hears of every cell that is finished, also of those found in the file.
    `passes_seen` are the paced passes of the cells it has measured itself."""

    def __init__(self, profile: Profile, extent: Extent, file: CellFile, note: Callable[[Cell], None]) -> None:
        self._profile = profile
        self._extent = extent
        self._file = file
        self._note = note
        self.passes_seen = 0
        self._prompts = testbed_prompts(read_testbed()["target"], PROMPTS_PER_DOMAIN)
        self._domains = len({prompt.domain for prompt in self._prompts})
        self._library = recorded_library()
        self._sources = sources_digest()
        self._profile_digest = digest_of([repr(replace(profile, time_scale=1.0)).encode()])

    def key(self, entrant: Entrant, load: Load, run: int) -> CellKey:
        """The cell of a strategy under a load."""
        extent = self._extent
        return CellKey(
            self._profile.name,
            self._profile_digest,
            entrant.park or entrant.strategy,
            entrant.strategy,
            load.name,
            extent.token_count,
            0 if load.is_open else self._request_count(load),
            extent.open_s if load.is_open else 0.0,
            extent.time_scale or load.time_scale(self._profile),
            run,
            extent.run_ahead,
        )

    async def run(self, entrants: Iterable[Entrant], runs: int, again: bool) -> None:
        """Measures what the file does not hold yet, what was refused or is invalid; with `again`, everything."""
        groups: list[Group] = []
        for entrant in entrants:
            tasks = [Task(self.key(entrant, load, run), load) for run in range(runs) for load in entrant.loads]
            try:
                parse(entrant.strategy)
                park = equal_cost(self._profile, parse(entrant.park or entrant.strategy))
            except BadRequest as error:
                self._refuse(tasks, error.message)
                continue
            missing = tasks if again else [task for task in tasks if not self._found(task)]
            for task in missing:
                where = park, task.key.time_scale
                group = next((group for group in groups if (group.park, group.time_scale) == where), None)
                if group is None:
                    group = Group(*where, [])
                    groups.append(group)
                group.tasks.append(task)
        with ExitStack() as stack:
            forks = fork_server() if groups else None
            if forks is not None:
                stack.callback(forks.close)
            for group in groups:
                await self._measure_group(group, forks)

    def _found(self, task: Task) -> bool:
        """True where the file holds the cell, and it says something."""
        cell = self._file.get(task.key)
        if cell is None or cell.figures is None or not cell.figures.is_valid:
            return False
        self._note(cell)
        return True

    async def _measure_group(self, group: Group, forks: ForkServer | None) -> None:
        """Starts the mesh and measures its cells; where the mesh does not start, all of them are refused."""
        ports = free_ports(workers(group.park))
        left = list(group.tasks)
        try:
            spec = mesh_spec(group.park, group.time_scale, ports, self._extent.run_ahead)
            async with AsyncExitStack() as stack:
                mesh = await stack.enter_async_context(Mesh(spec, forks=forks))
                client = await stack.enter_async_context(AsyncClient(mesh.gateway_address))
                bench = Bench(client, self._prompts, self._extent.token_count, ports)
                virtual = self._virtual_bench(group.park)
                while left:
                    cell = await self._measure(bench, group.park, left[0])
                    self._finish(await asyncio.to_thread(replayed, cell, left[0].load, virtual))
                    left.pop(0)
        except MeshError as error:
            self._refuse(left, error.message)

    def _virtual_bench(self, park: Profile) -> VirtualBench | None:
        """The same mesh in virtual time."""
        if self._library is None:
            return None
        return VirtualBench(park, self._library, self._prompts, self._extent.token_count, self._extent.run_ahead)

    async def _measure(self, bench: Bench, park: Profile, task: Task) -> Cell:
        extent, time_scale, start = self._extent, task.key.time_scale, time.perf_counter()
        found, refused = None, ""
        try:
            async with asyncio.timeout(extent.cell_timeout_s):
                await bench.warm_up(task.key.strategy, task.load)
                if task.load.is_open:
                    capacity = capacity_per_s(self._profile, extent.token_count)
                    times_s = arrivals(task.load.shares, capacity, extent.open_s, ARRIVALS_SEED + task.key.run)
                    observed = await bench.opened(
                        task.key.strategy, task.load, [when_s * time_scale for when_s in times_s]
                    )
                else:
                    observed = await bench.closed(task.key.strategy, task.load, task.key.request_count)
            found = figures(observed, time_scale, park.verifier_count)
            self.passes_seen += found.pass_count or 0
        except TimeoutError:
            refused = f"took longer than {extent.cell_timeout_s:g} s; allow more with --cell-timeout-s"
        except ExceptionGroup as errors:
            known, others = errors.split(MeshError)
            if others is not None:
                raise
            assert known is not None
            refused = first_message(known)
        return Cell(task.key, found, refused, time.perf_counter() - start, self._sources)

    def _request_count(self, load: Load) -> int:
        """Requests measured in a closed loop: at least one per client, and of every domain equally many."""
        least = max(self._extent.prompt_count * self._domains, load.clients)
        return math.ceil(least / self._domains) * self._domains

    def _refuse(self, tasks: Iterable[Task], message: str) -> None:
        for task in tasks:
            self._finish(Cell(task.key, None, message, 0.0, self._sources))

    def _finish(self, cell: Cell) -> None:
        self._file.add(cell)
        self._note(cell)


def replayed(cell: Cell, load: Load, virtual: VirtualBench | None) -> Cell:
    """The cell with what the simulator says of it."""
    if cell.figures is None or virtual is None:
        return cell
    virtual_ms = virtual.token_ms(cell.key.strategy, load, cell.key.request_count)
    return replace(cell, figures=replace(cell.figures, virtual_ms=virtual_ms))


def first_message(errors: BaseExceptionGroup[MeshError]) -> str:
    """What the first of several failures says."""
    first = errors.exceptions[0]
    return first_message(first) if isinstance(first, BaseExceptionGroup) else first.message


def sources_digest(root: Path = PROJECT_ROOT) -> str:
    """Names the code that is measured."""
    paths = sorted(path for package in MEASURED_PACKAGES for path in (root / package).rglob("*.py"))
    return digest_of(path.read_bytes() for path in paths)
