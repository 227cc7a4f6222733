"""Settings of the gateway: the model whose tokenizer it speaks, and the bounds of requests."""

from __future__ import annotations

from pydantic import Field

from cosine.core.intake import IntakeLimits
from cosine.rpc.settings import ServiceSettings
from cosine.store.admission import AdmissionBounds


class GatewaySettings(ServiceSettings):
    """A gateway: takes requests from clients and streams text back."""

    model: str = Field(
        description="the target: a folder or hub id (its tokenizer is read, not its weights), or toy[:...]"
    )
    tokens_max: int = Field(0, ge=0, description="tokens of prompt and output together; 0: what the verifiers say")
    prompt_bytes_max: int = Field(1 << 20, ge=1, description="bytes of a prompt's text at most, before it is tokenized")
    new_tokens_max: int = Field(1024, ge=1, description="tokens of one generation at most")
    default_strategy: str = Field("cosine", description="strategy of requests that name none")
    requests_max: int = Field(256, ge=1, description="requests served at once; more are refused with a retry delay")
    waiting_max: int = Field(256, ge=1, description="requests of the mesh that may wait for a scheduler")
    retry_delay_ms: int = Field(500, ge=1, description="when a refused client is told to try again")
    request_timeout_s: float = Field(
        600.0, gt=0, description="longest life of a request; a client's deadline may be shorter"
    )
    attempts_max: int = Field(4, ge=1, description="schedulers a request is given to, one after the loss of the other")
    unheard_s: float = Field(
        5.0, gt=0, description="seconds after which a taken request nobody speaks of is admitted again"
    )
    scheduler_wait_s: float = Field(
        5.0, ge=0, description="seconds a request waits for a first scheduler to be connected"
    )
    record_ttl_s: int = Field(3600, ge=1, description="seconds for which a request can be resumed by its id alone")

    def intake_limits(self) -> IntakeLimits:
        return IntakeLimits(new_tokens_max=self.new_tokens_max)

    def admission_bounds(self) -> AdmissionBounds:
        return AdmissionBounds(
            waiting_max=self.waiting_max, retry_delay_ms=self.retry_delay_ms, record_ttl_s=self.record_ttl_s
        )
