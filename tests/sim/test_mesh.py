"""The whole mesh in virtual time: its text is the recording's, its times are the profile's, and it repeats itself."""

from dataclasses import replace

import pytest

from cosine.core import events as ev
from cosine.core.sampling import GREEDY
from cosine.core.strategy import PRESETS
from cosine.sim.control import ControlCost
from cosine.sim.library import Script
from cosine.sim.load import closed_load, open_load
from cosine.sim.mesh import Mesh, Request
from cosine.sim.outcome import run
from cosine.sim.peers import Shape
from cosine.sim.profile import Link
from cosine.sim.recording import Variant
from cosine.sim.verifier import WrongText
from tests.sim.parks import VERIFIER, library, park

STRATEGIES = [
    *PRESETS,
    "cosine:lookahead=4",
    "cosine:fusion_interval=1,reading=replace",
    "cosine:cooperation=merged,fusion_interval=1",
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("variant", [Variant.GREEDY, Variant.SHARED])
def test_every_strategy_commits_the_recorded_text(strategy: str, variant: Variant) -> None:
    temperature = 0.0 if variant is Variant.GREEDY else 1.0
    load = replace(closed_load(4, 12, 96), temperature=temperature)
    row, mesh = run(park(PRESETS[strategy.partition(":")[0]].verifiers), library(variant), strategy, load)
    assert mesh.done_count >= row.request_count == 12  # the mesh compares every token that comes out of it


@pytest.mark.parametrize("strategy", PRESETS)
def test_a_strategy_repeats_itself_to_the_last_digit(strategy: str) -> None:
    verifiers = PRESETS[strategy].verifiers
    rows = [run(park(verifiers), library(), strategy, closed_load(3, 6, 64))[0] for _ in range(2)]
    assert rows[0] == rows[1]


def test_another_seed_is_another_run() -> None:
    load = open_load("high", park(), 8, 32)
    rows = [run(park(), library(), "cosine", replace(load, seed=seed))[0] for seed in (1, 2)]
    assert rows[0].seconds != rows[1].seconds


def test_plain_decoding_takes_what_the_profile_says() -> None:
    link = Link(1.5, 1e9)
    row, mesh = run(park(link=link), library(), "plain", closed_load(1, 5))
    expected_ms = 0.0
    for number in range(5):
        script = load_script(number)
        expected_ms += VERIFIER.forward_ms(script.prompt_length, 0) + 2 * link.latency_ms
        for count in range(1, script.new_count):
            expected_ms += VERIFIER.forward_ms(1, script.prompt_length + count - 1) + 2 * link.latency_ms
    assert 1000 * mesh.clock.now == pytest.approx(expected_ms, rel=1e-6)
    assert row.latency_ms == pytest.approx(expected_ms / (5 * 128), rel=1e-6)
    assert row.acceptance_length == 1.0


def load_script(number: int) -> Script:
    """The text of a closed load's request."""
    return closed_load(1, 1).request(library(), number, 0.0).script


@pytest.mark.parametrize("strategy", ["plain", "cosine", "dsi", "pipeinfer"])
def test_every_device_is_busy_or_idle_all_the_time(strategy: str) -> None:
    _, mesh = run(park(PRESETS[strategy].verifiers), library(), strategy, closed_load(4, 8, 48))
    devices = [peer.device for cell in mesh.cells for peer in cell.verifiers.values()]
    devices += [peer.device for peer in mesh.drafters.values()]
    for device in devices:
        assert device.busy_s() + device.idle_s() == pytest.approx(mesh.clock.now)
    assert all(device.busy_s() > 0 for device in devices[:1])


@pytest.mark.parametrize("drafter_count", [1, 2, 5, 7, 20, 64])
def test_any_number_of_drafters_serves(drafter_count: int) -> None:
    shape = Shape(drafter_count=drafter_count)
    for strategy in ("cosine", "specinfer", "minions", "spin"):
        row, mesh = run(park(), library(), strategy, closed_load(4, 4, 24), shape)
        assert len(mesh.drafters) == drafter_count
        assert row.acceptance_length > 1.0


def test_cells_share_drafters_and_requests() -> None:
    rows = []
    for cell_count in (1, 4):
        row, mesh = run(park(), library(), "cosine", closed_load(16, 16, 64), Shape(cell_count, 20))
        rows.append(row)
        assert all(cell.scheduler.live_count for cell in mesh.cells)
    assert rows[1].tokens_per_s > rows[0].tokens_per_s


def test_a_scheduler_that_needs_time_to_think_is_slower() -> None:
    slow = Shape(control=ControlCost(scheduler_event_us=2000, fusion_item_us=2000))
    rows = [run(park(), library(), "cosine", closed_load(4, 8, 48), shape)[0] for shape in (Shape(), slow)]
    assert rows[1].tokens_per_s < 0.8 * rows[0].tokens_per_s


def test_requests_beyond_a_schedulers_room_wait_for_their_turn() -> None:
    mesh = Mesh(park(), library(), "vanilla", False, Shape(live_max=3, verifier_sessions_max=3))
    script = library().scripts[0]
    for number in range(8):
        mesh.submit(Request(f"r{number}", script, 32, GREEDY, 0.0))
    most = 0
    while mesh.clock.step():
        most = max(most, mesh.cells[0].scheduler.live_count)
    assert (most, mesh.done_count, len(mesh.queue)) == (3, 8, 0)


@pytest.mark.parametrize("think_us", [0, 3000])
def test_a_request_that_is_withdrawn_leaves_nothing_whether_it_runs_or_waits(think_us: int) -> None:
    mesh = Mesh(park(), library(), "cosine", False, Shape(live_max=2, control=ControlCost(scheduler_event_us=think_us)))
    done: list[str] = []
    mesh.on_done = lambda request: done.append(request.request_id)
    for number in range(4):
        mesh.submit(Request(f"r{number}", library().scripts[number], 32, GREEDY, 0.0))
    mesh.run(lambda: mesh.token_count > 8)
    for name in ("r0", "r3", "nobody"):
        mesh.withdraw(name)
    while mesh.clock.step():
        pass
    assert sorted(done) == ["r1", "r2"]
    assert not mesh.requests
    assert mesh.cells[0].scheduler.live_count == 0
    assert not any(peer.drafter._contexts for peer in mesh.drafters.values())


def test_a_wrong_token_is_an_error() -> None:
    mesh = Mesh(park(), library(), "plain", False)
    script = library().scripts[0]
    mesh.requests["r0"] = Request("r0", script, 8, GREEDY, 0.0)
    wrong = (script.token_ids[script.prompt_length] + 1) % 2048
    with pytest.raises(WrongText, match="r0"):
        mesh.progress(ev.Progress("gateway", "r0", 1, 0, (wrong,)))
    with pytest.raises(WrongText, match="r0"):
        mesh.progress(ev.Progress("gateway", "r0", 1, 1, (script.token_ids[script.prompt_length],)))


def test_a_mesh_in_which_nothing_happens_any_more_is_an_error() -> None:
    mesh = Mesh(park(), library(), "plain", False)
    with pytest.raises(AssertionError, match="nothing is under way"):
        mesh.run(lambda: False)
