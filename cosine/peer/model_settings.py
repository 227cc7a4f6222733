"""Settings of the two services that hold a model."""

from __future__ import annotations

from pydantic import Field

from cosine.engine.base import EngineLimits
from cosine.engine.loading import EngineOptions
from cosine.peer.desk import PASS_TIMEOUT_S
from cosine.peer.slow_link import LinkPace, parse_link
from cosine.rpc.hello import STEP_SESSIONS_MAX, Bounds
from cosine.rpc.settings import ServiceSettings


class ModelSettings(ServiceSettings):
    """Flags of a service with a model."""

    model: str = Field(description="folder or hub id of a Hugging Face decoder-only model, or toy[:KEY=NUMBER,...]")
    dtype: str = Field(
        "auto",
        description="auto, float32, bfloat16 or float16; auto takes the checkpoint's on CUDA, float32 on a CPU "
        "(a verifier: bfloat16 where the CPU computes it)",
    )
    device: str = Field("auto", description="auto, cpu or cuda[:N]; auto takes CUDA where torch sees one")
    threads: int = Field(1, ge=1, le=256, description="threads of the model's arithmetic on a CPU")
    pace: str = Field("", description="BASE_MS[,ROW_MS[,KILOTOKEN_MS]]: take as long as other hardware would")
    link: str = Field("", description="ROUND_TRIP_MS[,MBPS]: answer as late as over a slower network")
    sessions_max: int = Field(64, ge=1, description="sessions held at once; the least recently used one makes room")
    tokens_max: int = Field(2048, ge=16, description="tokens of one session, prompt and output, at most")
    tree_nodes_max: int = Field(64, ge=1, description="nodes of one token tree at most")
    prefill_chunk: int = Field(512, ge=16, description="context tokens run in one forward pass at most")
    pass_timeout_s: float = Field(
        PASS_TIMEOUT_S, gt=0, description="seconds of a pass before the process ends as hung; the first has five times"
    )

    def engine_options(self) -> EngineOptions:
        return EngineOptions(self.dtype, self.device, self.threads, self.pace, self.cpu_dtype())

    def cpu_dtype(self) -> str:
        """What dtype "auto" is on a CPU."""
        return "float32"

    def link_pace(self) -> LinkPace | None:
        """The network to imitate. Raises BadRequest where `link` makes no sense."""
        return parse_link(self.link) if self.link else None

    def engine_limits(self) -> EngineLimits:
        return EngineLimits(self.sessions_max, self.tokens_max, self.tree_nodes_max, self.prefill_chunk)

    def bounds(self, tokens_max: int) -> Bounds:
        """What the service tells its callers; `tokens_max` is the model's own limit or ours, whichever is smaller."""
        return Bounds(
            sessions_max=self.sessions_max,
            batch_max=STEP_SESSIONS_MAX,
            tree_nodes_max=self.tree_nodes_max,
            tokens_max=tokens_max,
        )
