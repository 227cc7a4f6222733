"""Opens the engine a source names: the toy, or any Hugging Face model; paced where a pace is given. Imports torch only
where a real model is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from cosine.core.errors import BadRequest
from cosine.engine.base import Engine, EngineLimits
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine
from cosine.text.tokenizer import fingerprint, is_toy, load_tokenizer


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run a model. Device "auto" is CUDA where torch sees one, else the CPU; dtype "auto" is the checkpoint's on
    CUDA and `cpu_dtype` on a CPU. `pace` is "BASE_MS,ROW_MS,KILOTOKEN_MS" or empty for full speed."""

    dtype: str = "auto"
    device: str = "auto"
    threads: int = 1
    pace: str = ""
    cpu_dtype: str = "float32"


def open_engine(source: str, options: EngineOptions, limits: EngineLimits) -> Engine:
    """The engine, loaded and ready. Raises a MeshError that says what to do where the source is no model."""
    engine = _open(source, options, limits)
    return PacedEngine(engine, parse_pace(options.pace)) if options.pace else engine


def _open(source: str, options: EngineOptions, limits: EngineLimits) -> Engine:
    if is_toy(source):
        return ToyEngine(source, fingerprint(load_tokenizer(source)), limits)
    import torch

    from cosine.engine import transformers_engine

    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = options.cpu_dtype if (options.dtype, device) == ("auto", "cpu") else options.dtype
    return transformers_engine.load(source, dtype=dtype, device=device, threads=options.threads, limits=limits)


def parse_pace(text: str) -> Pace:
    """Raises BadRequest where the text is not one to three numbers of zero or more."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or min(numbers) < 0:
        raise BadRequest("PACE", f"pace {text!r} is not BASE_MS[,ROW_MS[,KILOTOKEN_MS]] with numbers of 0 or more")
    return Pace(*numbers)
