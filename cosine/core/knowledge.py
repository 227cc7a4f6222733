"""What requests taught, per kind of prompt: the hit rates a new request starts from, shared between schedulers.

Every request's prompt belongs to a cluster (`clusters`). Hits and tries of each drafter, and of the drafted path as a
whole, are counted there and fade with time, so that they follow what changes. A rate is shrunk towards that of clusters
that are alike, which is shrunk towards that of all. Counts only ever add up: a scheduler takes its changes, a common
place adds them to everybody's (`merged`), and the scheduler goes on from the sum. Where that place is, and how it is
reached, is not known here; without it a scheduler knows what it has seen itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core.clusters import JOIN_MIN, SAME_MIN, Cluster, Tally, Vector, closest_pair, embed, likeness, nearest
from cosine.core.pace import HIT_PRIOR
from cosine.core.routing import FIRST_GUESS, Credit

CLUSTERS_MAX = 64
WRITERS_MAX = 64
HALF_LIFE_S = 3600.0
FORGET_BELOW = 0.01  # prompts
WEIGHT = 4.0  # tries for which the rate that a rate is shrunk towards stands in
PATH = ""  # the tally of drafted paths as a whole; every drafter has a name


@dataclass(frozen=True, slots=True)
class Shared:
    """What all schedulers know together. `epoch` names the data: another one means that the common place lost it.

    `time` is when it was written, in seconds of the common place's clock; `taken` is the last change of each writer
    that is counted in it, the latest writer last.
    """

    epoch: str = ""
    time: float = 0.0
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """What one scheduler has newly `seen` of a cluster, and the cluster's `mean`, by which another one finds it."""

    seen: Cluster
    mean: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What one scheduler has learned since the changes before, by cluster, on top of `base`."""

    writer: str
    sequence: int
    base: Shared
    added: Mapping[str, Addition]


class Knowledge:
    """One scheduler's part. `writer` names this process: no other one, and no later one, may use the same name."""

    def __init__(self, writer: str = "scheduler") -> None:
        self._writer = writer
        self._known: dict[str, Cluster] = {}
        self._unsent: dict[str, Cluster] = {}
        self._overall = Cluster()
        self._base = Shared()
        self._in_flight: Changes | None = None
        self._sequence = 0
        self._founded_count = 0
        self._faded_at: float | None = None
        self.version = 0  # another one where clusters have come, gone or been joined

    @property
    def cluster_count(self) -> int:
        return len(self._known)

    def priors(self, prompt_token_ids: Sequence[int]) -> Priors:
        """What to expect of a request with this prompt, which is counted as one more of its kind."""
        vector = embed(prompt_token_ids)
        name = self.find(vector) or self._found()
        for clusters in (self._known, self._unsent):
            clusters.setdefault(name, Cluster()).add(Cluster(vector, 1.0))
        return Priors(self, vector, name)

    def find(self, vector: Vector) -> str:
        """The name of the cluster a prompt belongs to, or ""."""
        index = nearest(list(self._known.values()), vector, JOIN_MIN)
        return "" if index is None else list(self._known)[index]

    def kin(self, vector: Vector, own: str) -> dict[str, float]:
        """Clusters alike a prompt, its own one left out: those it might belong to count in full, others in part."""
        found = likeness(list(self._known.values()), vector) if self._known else ()
        shares = {name: min(1.0, float(alike) / JOIN_MIN) for name, alike in zip(self._known, found, strict=True)}
        return {name: share for name, share in shares.items() if share > 0.0 and name != own}

    def expected(self, kin: Mapping[str, float], tally: str, first_guess: float) -> float:
        """The rate that clusters alike suggest."""
        total = Tally()
        for name, share in kin.items():
            known = self.tally(name, tally)
            total.hits += share * known.hits
            total.tries += share * known.tries
        return total.rate(self._overall.tallies.get(tally, Tally()).rate(first_guess, WEIGHT), WEIGHT)

    def holds(self, name: str) -> bool:
        """Whether there is still a cluster of this name; it may have been joined with another, or made room."""
        return name in self._known

    def tally(self, name: str, tally: str) -> Tally:
        """What was counted in the cluster called `name`, nothing where there is none."""
        return self._known[name].tallies.get(tally, Tally()) if name in self._known else Tally()

    def note(self, name: str, tally: str, hits: float, tries: float) -> None:
        """Counts in the cluster called `name`; nothing where there is none any more."""
        if name in self._known and tries > 0.0:
            if name not in self._unsent:
                self._unsent[name] = Cluster()
            for cluster in (self._known[name], self._unsent[name], self._overall):
                cluster.note(tally, hits, tries)

    def take_changes(self, now: float) -> Changes:
        """What was learned since the last changes; the same once more until `absorb` has seen that they arrived.

        `now` in seconds on any clock that only goes forward: what is known fades until then.
        """
        self._fade(now)
        if self._in_flight is None and self._unsent:
            self._sequence += 1
            self._in_flight = Changes(self._writer, self._sequence, self._base, self._additions())
            self._unsent = {}
        return self._in_flight or Changes(self._writer, self._sequence, self._base, {})

    def absorb(self, shared: Shared) -> None:
        """Goes on from what all know, own changes included, and from what has not arrived there yet."""
        if self._in_flight is not None and self._in_flight.sequence <= shared.taken.get(self._writer, 0):
            self._in_flight = None
        unsent = self._additions()
        self._base, self._unsent = shared, {}
        self._known = {name: cluster.faded(1.0) for name, cluster in shared.clusters.items()}
        if self._in_flight is not None:
            for name, addition in self._in_flight.added.items():
                _place(self._known, name, addition)
        for name, addition in unsent.items():
            if place := _place(self._known, name, addition):
                self._unsent.setdefault(place, Cluster()).add(addition.seen)
        self._trim(CLUSTERS_MAX)

    def _additions(self) -> dict[str, Addition]:
        return {
            name: Addition(seen, self._known[name].mean) for name, seen in self._unsent.items() if name in self._known
        }

    def _found(self) -> str:
        """The name of a new cluster; the least used one makes room for it."""
        if len(self._known) >= CLUSTERS_MAX:
            self._trim(CLUSTERS_MAX - 1)
        self._founded_count += 1
        return f"{self._writer}/{self._founded_count}"

    def _fade(self, now: float) -> None:
        factor = _fading(now - (now if self._faded_at is None else self._faded_at))
        self._faded_at = now
        self._known = {name: cluster.faded(factor) for name, cluster in self._known.items()}
        self._unsent = {name: cluster.faded(factor) for name, cluster in self._unsent.items()}
        self._trim(CLUSTERS_MAX)

    def _trim(self, count_max: int) -> None:
        """Makes room, and sums up what is left."""
        _make_room(self._known, count_max)
        self.version += 1
        self._unsent = {name: seen for name, seen in self._unsent.items() if name in self._known}
        self._overall = Cluster()
        for cluster in self._known.values():
            for name, tally in cluster.tallies.items():
                self._overall.note(name, tally.hits, tally.tries)


class Priors:
    """What to expect of one request, and where to note what came of it; `Knowledge.priors` makes them.

    `prior` and `note` are what a `routing.Route` asks for.
    """

    def __init__(self, knowledge: Knowledge, vector: Vector, name: str) -> None:
        self._knowledge = knowledge
        self._vector = vector
        self._name = name
        self._version = knowledge.version
        self._kin: dict[str, float] | None = None
        self._expected: dict[str, float] = {}

    def prior(self, drafter: str) -> float:
        """Expected hit rate of a drafter in requests of this kind."""
        return self._rate(drafter, FIRST_GUESS)

    def note(self, drafter: str, credit: Credit) -> None:
        """A drafter's part in one round of this request."""
        self._knowledge.note(self._cluster, drafter, credit.hits, credit.tries)

    @property
    def hit_rate(self) -> float:
        """How often the next token of a drafted path is expected to be right, given that the one before was."""
        return self._rate(PATH, HIT_PRIOR)

    def note_hit_rate(self, accepted_count: int, depth: int) -> None:
        """A verdict took `accepted_count` tokens of a tree `depth` deep: so many hits, and a miss unless all."""
        self._knowledge.note(self._cluster, PATH, accepted_count, min(depth, accepted_count + 1))

    def _rate(self, tally: str, first_guess: float) -> float:
        own = self._cluster
        if tally not in self._expected:
            if self._kin is None:
                self._kin = self._knowledge.kin(self._vector, own)
            self._expected[tally] = self._knowledge.expected(self._kin, tally, first_guess)
        return self._knowledge.tally(own, tally).rate(self._expected[tally], WEIGHT)

    @property
    def _cluster(self) -> str:
        """The request's cluster, found anew where clusters have come or gone since."""
        if self._version != self._knowledge.version:
            self._version = self._knowledge.version
            self._kin, self._expected = None, {}
            if not self._knowledge.holds(self._name):
                self._name = self._knowledge.find(self._vector)
        return self._name


def merged(shared: Shared | None, changes: Changes, now: float) -> Shared:
    """What all know once `changes` are counted, each of them once; `shared` is None where the common place is empty.

    `now` in seconds of the common place's clock. Where that lost its data, the writer's base is put back first; who
    comes later with the same base finds it there, since of two accounts of one thing the fuller one is kept.
    """
    base = changes.base
    is_new = shared is None or shared.epoch != base.epoch
    if shared is None:
        shared = Shared(f"{changes.writer}@{now:.6f}", now)
    elif not is_new and not changes.added:
        return shared
    clusters, taken = _faded(shared, now), dict(shared.taken)
    if is_new:
        for name, cluster in _faded(base, now).items():
            _keep_fuller(clusters, name, cluster)
        taken = {writer: max(base.taken.get(writer, 0), taken.get(writer, 0)) for writer in base.taken | taken}
    before = taken.pop(changes.writer, 0)
    if before < changes.sequence:
        for name, addition in changes.added.items():
            _place(clusters, name, addition)
    taken[changes.writer] = max(before, changes.sequence)
    _unify(clusters)
    _make_room(clusters, CLUSTERS_MAX)
    return Shared(shared.epoch, now, clusters, dict(list(taken.items())[-WRITERS_MAX:]))


def _fading(elapsed_s: float) -> float:
    return float(0.5 ** (max(0.0, elapsed_s) / HALF_LIFE_S))


def _faded(shared: Shared, now: float) -> dict[str, Cluster]:
    factor = _fading(now - shared.time)
    return {name: cluster.faded(factor) for name, cluster in shared.clusters.items()}


def _match(clusters: Mapping[str, Cluster], name: str, mean: Vector, least: float) -> str:
    """The cluster of this name, else the one most alike, else ""."""
    if name in clusters:
        return name
    index = nearest(list(clusters.values()), mean, least)
    return "" if index is None else list(clusters)[index]


def _place(clusters: dict[str, Cluster], name: str, addition: Addition) -> str:
    """Adds to the cluster of this name, else to one of the same kind, else makes one; its name, or "" for no place.

    What came without a prompt cannot make a cluster, so that it goes to one that is less alike, if there is one.
    """
    founds = addition.seen.prompt_count > 0.0
    place = _match(clusters, name, addition.mean, SAME_MIN if founds else JOIN_MIN)
    if place:
        clusters[place].add(addition.seen)
    elif founds:
        clusters[name] = addition.seen.faded(1.0)
    return place or (name if founds else "")


def _keep_fuller(clusters: dict[str, Cluster], name: str, cluster: Cluster) -> None:
    """Puts a cluster back; where it is there already, each part that rests on more evidence wins."""
    place = _match(clusters, name, cluster.mean, SAME_MIN)
    if not place:
        clusters[name] = cluster
        return
    kept = clusters[place]
    if cluster.prompt_count > kept.prompt_count:
        kept.total, kept.prompt_count = cluster.total, cluster.prompt_count
    for model, tally in cluster.tallies.items():
        if tally.tries > kept.tallies.get(model, Tally()).tries:
            kept.tallies[model] = tally


def _unify(clusters: dict[str, Cluster]) -> None:
    """Joins clusters of one kind that different schedulers made; the more used one's name stays."""
    while pair := closest_pair(list(clusters.values())):
        names = [list(clusters)[index] for index in pair]
        kept, other = sorted(names, key=lambda name: (-clusters[name].prompt_count, name))
        clusters[kept].add(clusters.pop(other))


def _make_room(clusters: dict[str, Cluster], count_max: int) -> None:
    """Forgets clusters that have faded away, and the least used ones past `count_max`."""
    ranked = sorted(clusters, key=lambda name: (-clusters[name].prompt_count, name))
    for rank, name in enumerate(ranked):
        if rank >= count_max or clusters[name].prompt_count < FORGET_BELOW:
            del clusters[name]
