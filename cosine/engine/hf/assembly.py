"""From a model's folder to a runner known to be right: the fastest whose logits equal those of stock transformers.

Before anything is replaced, the stock model answers for a short probe; each way of running is then asked the same
probe as a tree with wrong turns, and the first that agrees is taken. Knows the ways, not how they work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from cosine.core.errors import BadRequest, Mismatch
from cosine.core.tree import TokenTree
from cosine.engine.hf.decoder import DecoderRunner, recognised
from cosine.engine.hf.loading import read_model, read_planes, read_windows, unsupported
from cosine.engine.hf.packing import pack
from cosine.engine.hf.runner import Anatomy, Runner, StockRunner
from cosine.engine.hf.slots import Slot
from cosine.engine.hf.span import Span
from cosine.engine.hf.step import Step

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": None}
PROBE_TREE = TokenTree(token_ids=(5, 8, 9, 6, 5, 7), parents=(-1, -1, 0, 0, 1, 3))
PROBE_CHAIN = (1, 2, 3, 4)
PROBE_PATH = (0, 3, 5)
PROBE_LENGTH = len(PROBE_CHAIN) + len(PROBE_TREE.token_ids)
# Root mean square difference to stock logits, in their standard deviations: rounding alone, where nothing is wrong.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}

# What models' code raises at inputs it does not expect.
PROBE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)

Ways = Iterator[Callable[[], Runner]]


def assemble(
    folder: Path, dtype: str | torch.dtype, device: str | torch.device, tokens_max: int
) -> tuple[Runner, PreTrainedConfig]:
    """The best runner for the model in `folder`; raises Mismatch where no way of running it is right."""
    place = _device(device)  # before the weights, which take long
    model = read_model(folder, _dtype(dtype)).to(place)  # type: ignore[arg-type]  # its wrapper hides what torch takes
    windows = read_windows(model)
    expected, cache = _stock_answer(model)
    anatomy = Anatomy(read_planes(cache, len(windows)), windows)
    problems: list[str] = []
    for way in _ways(model, anatomy, tokens_max):
        try:
            runner = way()
            problem = _difference(runner, expected, model.dtype)
        except PROBE_ERRORS as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            return runner, model.config
        problems.append(problem)
    raise unsupported(model.config, "no way of running trees gives its own logits (" + "; ".join(problems) + ")")


def _dtype(name: str | torch.dtype) -> torch.dtype | None:
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise BadRequest("PARAMETER_OUT_OF_RANGE", f"dtype is {name!r}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadRequest(
            "PARAMETER_OUT_OF_RANGE", f"device is {str(name)!r}; it must be auto, cpu or cuda[:N]"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        advice = (
            "see whether nvidia-smi lists one and CUDA_VISIBLE_DEVICES names it"
            if torch.version.cuda
            else f"torch {torch.__version__} is built without CUDA; install one that is built with it"
        )
        raise Mismatch("DEVICE_MISSING", f"this process sees no CUDA device: {advice}, or take --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise Mismatch("DEVICE_MISSING", f"this process sees no {device}; its last CUDA device is cuda:{last}")
    return device


def _ways(model: PreTrainedModel, anatomy: Anatomy, tokens_max: int) -> Ways:
    """Fastest first. Each leaves the model as it found it once the next is asked for."""
    if recognised(model):
        yield lambda: DecoderRunner(model, anatomy, max(tokens_max, PROBE_LENGTH))
    stock_attention = model.config._attn_implementation
    for packed in (True, False):
        undo = pack(model) if packed else None
        yield lambda: StockRunner(model, anatomy, own=True)
        model.set_attn_implementation(stock_attention)
        yield lambda: StockRunner(model, anatomy, own=False)
        if undo is not None:
            undo()


def _stock_answer(model: PreTrainedModel) -> tuple[Tensor, DynamicCache]:
    """Logits of the probe's tokens in a row, from the root down the true path, and the cache that they leave."""
    tokens = [*PROBE_CHAIN, *(PROBE_TREE.token_ids[node] for node in PROBE_PATH)]
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True)
    logits: Tensor = output.logits[0, len(PROBE_CHAIN) - 1 :].float()
    return logits, cache


def _difference(runner: Runner, expected: Tensor, dtype: torch.dtype) -> str | None:
    """What is wrong with a runner's answer to the probe, or None."""
    slot = Slot(runner.planes, runner.kv_dtype, runner.device)
    with torch.inference_mode():
        for chain, tree in ((PROBE_CHAIN[:2], TokenTree()), (PROBE_CHAIN[2:], PROBE_TREE)):
            step = Step([Span(slot, chain, tree)], runner.device, runner.mask_dtype)
            logits = runner.logits(step, step.asked_rows())
            slot.extend(chain, tree.token_ids)
    found = logits.float()[[0, *(1 + node for node in PROBE_PATH)]]
    error = float(((found - expected).square().mean(-1) / expected.var(-1).clamp_min(1e-12)).max().sqrt())
    return None if error < TOLERANCE[dtype] else f"logits differ by {error:.2g} of their standard deviation"
