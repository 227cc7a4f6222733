"""Closed loops keep so many requests going; open ones come as often as they say, and always the same."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from cosine.sim.load import Load, Source, closed_load, open_load, plain_tokens_per_s
from cosine.sim.mesh import Mesh
from cosine.sim.table import LOAD_NAMES, load_named
from tests.sim.parks import VERIFIER, library, park


def play(load: Load, strategy: str = "vanilla") -> tuple[Mesh, Source]:
    """A mesh that has served a load."""
    mesh = Mesh(park(), library(), strategy, False)
    source = Source(mesh, load)
    source.start()
    mesh.run(lambda: source.all_done)
    return mesh, source


def test_domains_and_their_texts_take_turns() -> None:
    requests = [closed_load(1, 1).request(library(), number, 0.0) for number in range(48)]
    assert len({request.script.number for request in requests}) == 48
    for start in range(0, 48, 4):
        assert len({request.script.domain for request in requests[start : start + 4]}) == 4


def test_a_closed_loop_stays_full_until_the_last_measured_request_is_done() -> None:
    mesh, source = play(closed_load(5, 12, 16))
    assert len(source.measured) == 12
    assert all(request.done_at > 0 for request in source.measured)
    assert mesh.cells[0].scheduler.live_count == 5


def test_open_arrivals_are_exponential_at_their_rate() -> None:
    load = Load("open", 1, rates=(4.0,))
    gaps = [load.gap_s(number, 0.0) for number in range(20_000)]
    assert sum(gaps) / len(gaps) == pytest.approx(0.25, rel=0.03)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.01)
    assert gaps != [replace(load, seed=1).gap_s(number, 0.0) for number in range(20_000)]


def test_a_fluctuating_load_changes_its_rate_every_period() -> None:
    load = Load("open", 1, rates=(1.0, 10.0), period_s=30.0)
    now, times = 0.0, []
    for number in range(2000):
        now += load.gap_s(number, now)
        times.append(now)
    turns = Counter(int(time / 30.0) % 2 for time in times)
    assert turns[1] / turns[0] == pytest.approx(10, rel=0.25)


def test_requests_of_an_open_load_come_one_after_the_other_whether_or_not_others_are_done() -> None:
    _, source = play(open_load("high", park(), 10, 32), "plain")
    came = [request.came for request in source.measured]
    assert all(later > earlier for earlier, later in pairwise(came))
    assert any(later < request.done_at for request, later in zip(source.measured, came[1:], strict=False))


def test_open_loads_are_shares_of_what_plain_decoding_can_do() -> None:
    full = plain_tokens_per_s(park())
    assert full == pytest.approx(16_000 / (VERIFIER.forward_ms(16, 16 * 128) + 1.0))
    low, high = (open_load(name, park(), 8, 64).rates[0] * 64 for name in ("low", "high"))
    assert (low / full, high / full) == pytest.approx((0.3, 0.9))


def test_all_loads_have_names() -> None:
    assert [load_named(name, park()).name for name in LOAD_NAMES] == list(LOAD_NAMES)
    assert load_named("closed-3", park()).client_count == 3
    for name in ("closed-0", "closed-x", "open-x", "other"):
        with pytest.raises(ValueError, match="there is no load"):
            load_named(name, park())
