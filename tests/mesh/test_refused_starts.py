"""A service that cannot work ends at once: status 2, the reason and what to do on the last line, no traceback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from processes import ended

from cosine.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = "redis://127.0.0.1:1"
AT_ONCE = 3
TINY_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}

# name: role, flags, Redis, reason, words of the message. {taken}: a port in use; {folder}: files of no model.
STARTS: dict[str, tuple[str, tuple[str, ...], str, str, tuple[str, ...]]] = {
    "gateway that is told of no Redis": ("gateway", ("--model=toy",), "", "NO_REDIS_URL", ("--redis-url", "cosine up")),
    "scheduler that is told of no Redis": ("scheduler", (), "", "NO_REDIS_URL", ("--redis-url", "cosine up")),
    "fusion that is told of no Redis": ("fusion", (), "", "NO_REDIS_URL", ("--redis-url", "cosine up")),
    # before they read a model
    "drafter that is told of no Redis": (
        "drafter",
        ("--model={folder}/weights",),
        "",
        "NO_REDIS_URL",
        ("--redis-url",),
    ),
    "verifier that is told of no Redis": (
        "verifier",
        ("--model={folder}/weights",),
        "",
        "NO_REDIS_URL",
        ("--redis-url",),
    ),
    "scheduler without its Redis": ("scheduler", (), NOBODY, "STORE_UNREACHABLE", (NOBODY, "check redis_url")),
    "fusion without its Redis": ("fusion", (), NOBODY, "STORE_UNREACHABLE", (NOBODY, "check redis_url")),
    "drafter with a Redis of no kind": ("drafter", ("--model=toy",), "nonsense", "STORE_URL", ("redis://HOST:PORT",)),
    "drafter on a port in use": (
        "drafter",
        ("--model=toy", "--listen={taken}"),
        NOBODY,
        "ADDRESS_IN_USE",
        ("{taken}", "choose another --listen"),
    ),
    "gateway without its model": ("gateway", ("--model=/no/such",), NOBODY, "MODEL_NOT_FOUND", ("/no/such", "check")),
    "gateway with a damaged tokenizer": (
        "gateway",
        ("--model={folder}/tokenizer",),
        NOBODY,
        "MODEL_DAMAGED",
        ("tokenizer.json", "again"),
    ),
    "verifier with damaged weights": ("verifier", ("--model={folder}/weights",), NOBODY, "MODEL_DAMAGED", ("again",)),
    "gateway without --model": ("gateway", (), "", "SETTINGS", ("--model",)),
    "gateway that listens nowhere": ("gateway", ("--model=toy", "--listen=foo"), NOBODY, "SETTINGS", ("--listen",)),
    "scheduler on a port too large": ("scheduler", ("--listen=127.0.0.1:99999",), "", "SETTINGS", ("99999",)),
    "drafter with a misspelt flag": (
        "drafter",
        ("--model=toy", "--pase=5"),
        NOBODY,
        "SETTINGS",
        ("--pase=5", "--help"),
    ),
    "fusion that logs loudly": ("fusion", ("--log-level=loud",), "", "SETTINGS", ("--log-level",)),
    "drafter with metrics on a port in use": (
        "drafter",
        ("--model=toy", "--metrics-listen={taken}"),
        NOBODY,
        "ADDRESS_IN_USE",
        ("{taken}", "--metrics-listen"),
    ),
}


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """An address somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders that look like models and are none."""
    root = tmp_path_factory.mktemp("models")
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "config.json").write_text("{}")
    (root / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0", "mod')
    (root / "weights").mkdir()
    (root / "weights" / "config.json").write_text(json.dumps(TINY_LLAMA))
    (root / "weights" / "model.safetensors").write_bytes(b"not weights")
    load_tokenizer("toy").save(str(root / "weights" / "tokenizer.json"))
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endings(taken: str, folder: Path) -> dict[str, tuple[int, str, str]]:
    """How every start ended; a few run side by side."""
    seats = asyncio.Semaphore(AT_ONCE)

    async def start(role: str, flags: tuple[str, ...], redis_url: str) -> tuple[int, str, str]:
        async with seats:
            filled = [flag.format(taken=taken, folder=folder) for flag in flags]
            return await ended(f"services.{role}", *filled, redis_url=redis_url)

    found = await asyncio.gather(*(start(*case[:3]) for case in STARTS.values()))
    return dict(zip(STARTS, found, strict=True))


@pytest.mark.parametrize("name", STARTS)
async def test_a_start_that_cannot_work_ends_with_one_clear_line(
    endings: dict[str, tuple[int, str, str]], taken: str, name: str
) -> None:
    status, output, errors = endings[name]
    *_, reason, words = STARTS[name]
    last = errors.splitlines()[-1]
    assert status == 2
    assert last.startswith(f"{reason}: ")
    assert [word for word in words if word.format(taken=taken) not in last] == []
    assert "Traceback" not in errors
    assert output == ""
