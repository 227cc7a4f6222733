"""Where a model runs and in which numbers, as far as its peer decides it: torch is asked, no file of a driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cosine.core.errors import Mismatch
from cosine.engine import transformers_engine
from cosine.engine.base import EngineLimits
from cosine.engine.hf import assembly
from cosine.engine.loading import EngineOptions, open_engine
from cosine.engine.processors import cpu_dtype
from services.drafter.__main__ import DrafterSettings
from services.verifier import __main__ as verifier

GPU, CPU = True, False


def asked_for(options: EngineOptions, sees_cuda: bool, patch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Device and dtype of the engine that these options open."""
    asked: dict[str, Any] = {}
    patch.setattr(torch.cuda, "is_available", lambda: sees_cuda)
    patch.setattr(transformers_engine, "load", lambda _, **how: asked.update(how))
    open_engine("a-model", options, EngineLimits())
    return asked["device"], asked["dtype"]


@pytest.mark.parametrize(
    ("sees_cuda", "options", "expected"),
    [
        (GPU, EngineOptions(), ("cuda", "auto")),
        (CPU, EngineOptions(), ("cpu", "float32")),
        (CPU, EngineOptions(cpu_dtype="bfloat16"), ("cpu", "bfloat16")),
        (CPU, EngineOptions(dtype="float16", cpu_dtype="bfloat16"), ("cpu", "float16")),
        (GPU, EngineOptions(device="cpu"), ("cpu", "float32")),
        (GPU, EngineOptions(dtype="float32"), ("cuda", "float32")),
        (CPU, EngineOptions(device="cuda:1"), ("cuda:1", "auto")),
    ],
    ids=str,
)
def test_auto_follows_what_torch_sees(
    sees_cuda: bool, options: EngineOptions, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_for(options, sees_cuda, monkeypatch) == expected


def test_on_a_cpu_a_verifier_takes_what_the_cpu_multiplies_and_a_drafter_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verifier, "cpu_dtype", lambda: "bfloat16")
    target = verifier.VerifierSettings(model="a-model", _cli_parse_args=False)  # type: ignore[call-arg]  # of pydantic
    drafter = DrafterSettings(model="a-model", _cli_parse_args=False)  # type: ignore[call-arg]  # of pydantic
    assert target.engine_options().cpu_dtype == "bfloat16"
    assert drafter.engine_options().cpu_dtype == "float32"


@pytest.mark.parametrize(
    ("flags", "dtype"), [("fpu avx512_bf16", "bfloat16"), ("amx_bf16 amx_tile", "bfloat16"), ("fpu avx2", "float32")]
)
def test_the_dtype_follows_the_cpu(tmp_path: Path, flags: str, dtype: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"flags : {flags}\n")
    assert cpu_dtype(path) == dtype
    assert cpu_dtype(tmp_path / "absent") == "float32"


@pytest.mark.parametrize(
    ("built_with", "advice"), [(None, "is built without CUDA; install one"), ("13.0", "nvidia-smi")], ids=str
)
def test_a_gpu_that_is_not_there_is_missed_before_weights_are_read_with_what_to_do(
    built_with: str | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_with)
    monkeypatch.setattr(assembly, "read_model", lambda *_: pytest.fail("read the weights"))
    with pytest.raises(Mismatch, match=f"sees no CUDA device: .*{advice}.*--device cpu") as caught:
        assembly.assemble(Path(), "auto", "cuda", 64)
    assert caught.value.reason == "DEVICE_MISSING"
