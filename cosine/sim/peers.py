"""How many peers there are, and what each worker consists of: a model, a device, wires."""

from __future__ import annotations

from dataclasses import dataclass, field

from cosine.core.events import BatchItem, SessionVerdict
from cosine.core.plan import DraftItem, Guess
from cosine.sim.clock import Clock
from cosine.sim.control import ControlCost
from cosine.sim.device import Device
from cosine.sim.drafter import Drafter
from cosine.sim.library import Library
from cosine.sim.profile import Link, Profile
from cosine.sim.verifier import Verifier
from cosine.sim.wire import Wire


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of everything. `drafter_count` replicas of the profile's drafters in turn (0: one of each), `cell_count`
    schedulers, which share all drafters or have their parts of them; `live_max` requests and `verifier_sessions_max`
    sessions at most per scheduler and verifier. With `run_ahead` drafters use their idle time, as the setting of that
    name of the service says."""

    cell_count: int = 1
    drafter_count: int = 0
    shared_drafters: bool = True
    live_max: int = 64
    verifier_sessions_max: int = 64
    tree_nodes_max: int = 64
    run_ahead: bool = False
    control: ControlCost = field(default_factory=ControlCost)


class DrafterPeer:
    """A drafter on its device. Replicas of one specialist are the same model."""

    def __init__(
        self, clock: Clock, name: str, specialist: str, profile: Profile, library: Library, run_ahead: bool = False
    ) -> None:
        self.name, self.specialist = name, specialist
        self.timing = profile.drafters[specialist]
        self.drafter = Drafter(library, library.drafters.index(specialist), self.timing, run_ahead)
        self.device: Device[DraftItem, Guess] = Device(
            clock, self.drafter.compute, self.drafter.give_up, self.drafter.close, self.drafter.idle
        )


class VerifierPeer:
    """A verifier on its device, with its wires from and to the scheduler."""

    def __init__(self, clock: Clock, name: str, verifier: Verifier, link: Link) -> None:
        self.name = name
        self.verifier = verifier
        self.device: Device[BatchItem, SessionVerdict] = Device(
            clock, verifier.compute, verifier.give_up, verifier.close
        )
        self.there, self.back = Wire(clock, link), Wire(clock, link)


def drafter_peers(clock: Clock, profile: Profile, library: Library, shape: Shape) -> dict[str, DrafterPeer]:
    """Replicas of the profile's drafters in turn; one of each where the shape says no number."""
    specialists = list(profile.drafters)
    peers = []
    for number in range(shape.drafter_count or len(specialists)):
        turn, index = divmod(number, len(specialists))
        name = f"{specialists[index]}-{turn}" if turn else specialists[index]
        peers.append(DrafterPeer(clock, name, specialists[index], profile, library, shape.run_ahead))
    return {peer.name: peer for peer in peers}
