"""A peer's process is the same, fresh Python or fork: its output, its end, and that it ends with us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from process_table import PROJECT_ROOT, Watch, environment

from cosine.cli.forkserver import Order, decoded
from cosine.cli.processes import ForkServer, Process, Start, start_fresh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are taken on Linux only")

WORDS = """import os, sys
import heavy
print(__name__, sys.argv[1:], os.environ.get("MOOD"), os.getsid(0) == os.getpid(), heavy.IMPORTED_BY, flush=True)
print("to the log", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
HEAVY = """import os
IMPORTED_BY = os.getpid()
open(os.environ["COUNTED"], "a").write("imported\\n")
"""
GATED = """import os
open(os.environ["GATE"]).read()
"""
RESTLESS = """import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
IDLE = """import threading
print("up", flush=True)
threading.Event().wait()
"""
SUPERVISOR = """import asyncio, os, sys
from cosine.cli.forkserver import Order
from cosine.cli.processes import ForkServer
async def main():
    server = ForkServer(["heavy"], os.environ)
    with open(os.devnull, "ab") as log:
        process = await server.start(Order("idle", (), dict(os.environ)), log)
    await process.stdout.readline()
    print(server.pid, process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """The environment of a server and its orders; modules of the test can be imported there."""
    programs = {"words": WORDS, "heavy": HEAVY, "gated": GATED, "restless": RESTLESS, "idle": IDLE}
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    return environment({"PYTHONPATH": f"{tmp_path}:{PROJECT_ROOT}", "COUNTED": str(tmp_path / "imports")})


@pytest_asyncio.fixture
async def server(variables: dict[str, str]) -> AsyncIterator[ForkServer]:
    running = ForkServer(["heavy"], variables | {"MOOD": "the server's own"})
    yield running
    running.close()


@pytest.fixture(params=["fresh", "forked"])
def start(request: pytest.FixtureRequest, server: ForkServer) -> Start:
    return start_fresh if request.param == "fresh" else server.start


async def run(start: Start, tmp_path: Path, order: Order) -> tuple[str, str, int]:
    """What a process wrote, what it logged, and how it ended."""
    with (tmp_path / "log").open("ab") as log:
        process = await start(order, log)
    assert process.stdout is not None
    written = (await process.stdout.read()).decode()
    return written, (tmp_path / "log").read_text(), await process.wait()


async def idle(start: Start, tmp_path: Path, variables: dict[str, str]) -> Process:
    """A process that waits for its end."""
    with (tmp_path / "log").open("ab") as log:
        process = await start(Order("idle", (), variables), log)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


async def test_a_process_runs_its_module_with_its_arguments_and_variables(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    order = Order("words", ("7", "--model=x"), variables | {"MOOD": "fine"})
    written, logged, status = await run(start, tmp_path, order)
    assert written.startswith("__main__ ['7', '--model=x'] fine True ")
    assert "to the log" in logged
    assert status == 7


async def test_variables_of_one_process_are_not_the_nexts(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    await run(start, tmp_path, Order("words", ("0",), variables | {"MOOD": "fine"}))
    written, _, status = await run(start, tmp_path, Order("words", ("0",), variables))
    assert " None " in written
    assert status == 0


async def test_forks_share_what_the_server_has_imported(
    server: ForkServer, tmp_path: Path, variables: dict[str, str]
) -> None:
    for _ in range(3):
        written, _, _ = await run(server.start, tmp_path, Order("words", ("0",), variables))
        assert written.split()[-1] == str(server.pid)
    assert (tmp_path / "imports").read_text() == "imported\n"


async def test_the_signal_that_ends_a_process_is_its_status(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    process = await idle(start, tmp_path, variables)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


async def test_an_error_in_a_fork_ends_that_fork_alone(
    server: ForkServer, tmp_path: Path, variables: dict[str, str]
) -> None:
    process = await idle(server.start, tmp_path, variables)
    _, logged, status = await run(server.start, tmp_path, Order("no_such_module", (), variables))
    assert status == 1
    assert "No module named no_such_module" in logged
    written, _, _ = await run(server.start, tmp_path, Order("words", ("0",), variables))
    assert written.split()[-1] == str(server.pid)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def test_forks_end_with_their_server_and_the_next_process_is_a_fresh_one(
    server: ForkServer, tmp_path: Path, variables: dict[str, str]
) -> None:
    process = await idle(server.start, tmp_path, variables)
    with Watch([process.pid]) as watch:
        os.kill(server.pid, signal.SIGKILL)
        assert watch.left() == []
    assert await process.wait() == -signal.SIGKILL
    written, _, status = await run(server.start, tmp_path, Order("words", ("0",), variables))
    assert written.split()[-1] != str(server.pid)
    assert status == 0


@pytest.mark.parametrize("module", ["no_such_module", "restless"])
async def test_what_cannot_be_imported_or_forked_leaves_fresh_processes(
    module: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    server = ForkServer([module], variables)
    try:
        written, _, status = await run(server.start, tmp_path, Order("words", ("3",), variables))
    finally:
        server.close()
    assert written.split()[-1] != str(server.pid)
    assert status == 3


@pytest.mark.parametrize(("count", "padding"), [(17, ""), (6, "x" * 46_000)], ids=["many", "large"])
async def test_orders_wait_for_a_server_that_imports_while_the_loop_goes_on(
    count: int, padding: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = ForkServer(["heavy", "gated"], variables | {"GATE": str(gate)})
    order = Order("words", ("0",), variables | {"PADDING": padding})
    try:
        runs = [asyncio.create_task(run(server.start, tmp_path, order)) for _ in range(count)]
        for _ in range(count):
            await asyncio.sleep(0)  # every one comes to where it waits
        await asyncio.to_thread(gate.write_text, "")
        ended = await asyncio.gather(*runs)
    finally:
        server.close()
    assert [written.split()[-1] for written, _, _ in ended] == [str(server.pid)] * count


async def test_an_environment_too_large_for_an_order_leaves_a_fresh_process_and_a_line_in_the_log(
    server: ForkServer, tmp_path: Path, variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    large = {f"PADDING_{index}": "x" * 100_000 for index in range(11)}
    written, _, status = await run(server.start, tmp_path, Order("words", ("3",), variables | large))
    assert status == 3
    assert written.split()[-1] != str(server.pid)
    assert caplog.messages == ["words is started without a fork: its environment is too large for one"]
    written, _, _ = await run(server.start, tmp_path, Order("words", ("0",), variables))
    assert written.split()[-1] == str(server.pid)


async def test_whoever_waits_for_a_server_that_imports_goes_on_when_it_is_closed(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    server = ForkServer(["idle"], variables)  # whose import never ends
    with (tmp_path / "log").open("ab") as log:
        starting = asyncio.ensure_future(server.start(Order("idle", (), variables), log))
        await asyncio.sleep(0)
        server.close()
        process = await starting
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def test_closing_a_server_ends_its_forks(tmp_path: Path, variables: dict[str, str]) -> None:
    server = ForkServer(["heavy"], variables)
    process = await idle(server.start, tmp_path, variables)
    with Watch([server.pid, process.pid]) as watch:
        server.close()
        assert watch.left() == []
    assert await process.wait() == -signal.SIGKILL


def test_neither_server_nor_fork_outlives_the_supervisor(tmp_path: Path, variables: dict[str, str]) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True, env=variables)
    assert supervisor.stdout is not None
    with Watch(map(int, supervisor.stdout.readline().split())) as watch:
        supervisor.kill()
        assert watch.left() == []
    supervisor.communicate()


def test_an_order_survives_the_wire() -> None:
    order = Order("services.drafter", ("--model=a b", "--listen=127.0.0.1:0"), {"PATH": "/bin", "X": "ü"})
    assert decoded(order.encoded()) == order
