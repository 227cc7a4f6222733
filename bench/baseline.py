"""What a user would run instead: transformers' own `generate`, plain and with an assistant model, in one process.

`python -m bench.baseline` reads one JSON object per line (prompt ids, options) and answers one per line, so that the
benchmark can let it take turns with the mesh. It is idle, without a spinning thread, whenever it waits.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Loads both models, says so, then answers until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--assistant", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    target = AutoModelForCausalLM.from_pretrained(options.target, dtype=torch.bfloat16).to(options.device)
    assistant = AutoModelForCausalLM.from_pretrained(options.assistant, dtype=torch.float32).to(options.device)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(target, assistant, json.loads(line))), flush=True)


def answer(target: Any, assistant: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Generates for one prompt; seconds and new token ids."""
    prompt = torch.tensor([request["prompt"]], device=target.device)
    count = request["max_new_tokens"]
    sampling = (
        {"do_sample": True, "temperature": request["temperature"]} if request["temperature"] else {"do_sample": False}
    )
    torch.manual_seed(request["seed"])
    start = time.perf_counter()
    with torch.inference_mode():
        output = target.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=count,
            max_new_tokens=count,
            assistant_model=assistant if request["assisted"] else None,
            pad_token_id=0,
            **sampling,
        )
    return {"seconds": time.perf_counter() - start, "token_ids": output[0, prompt.shape[1] :].tolist()}


if __name__ == "__main__":
    main()
