"""What a model computes on: named, so that peers that share it can be told, and what it computes fast in. Imports torch
only for a GPU."""

from __future__ import annotations

import os
from pathlib import Path

from cosine.core.processors import UNKNOWN, Processor

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # one per running kernel: containers of one machine share it
CPU_INFO = Path("/proc/cpuinfo")


def processor_of(device: str, threads: int) -> Processor:
    """The processor behind a torch device's name; `threads` are those of the model's arithmetic on a CPU.

    Of a machine's cores one is left for messages. A device that only plays another ("paced") is its own.
    """
    machine = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.is_file() else ""
    kind, _, index = device.partition(":")
    if kind == "paced":
        return Processor(f"paced:{os.getpid()}@{machine}")
    if kind == "cpu" and machine:
        allowed = sorted(os.sched_getaffinity(0))
        cores = f"{allowed[0]}-{allowed[-1]}" if len(allowed) == allowed[-1] - allowed[0] + 1 else str(allowed)
        return Processor(f"cpu:{cores}@{machine}", max(1, len(allowed) - 1), threads)
    if kind == "cuda":
        return Processor(f"cuda:{_gpu(int(index or 0))}")
    return UNKNOWN


def cpu_dtype(cpu_info: Path = CPU_INFO) -> str:
    """bfloat16 where this CPU multiplies it in hardware, float32 elsewhere (there it would be slower, not faster)."""
    try:
        known = cpu_info.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(known) else "float32"


def _gpu(index: int) -> str:
    import torch

    return str(torch.cuda.get_device_properties(index).uuid)
