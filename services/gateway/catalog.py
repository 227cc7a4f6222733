"""What the gateway knows of the mesh: the peers as the registry last told, and what follows from them for requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog

from cosine.core.errors import Mismatch, Unavailable
from cosine.core.intake import ModelFacts
from cosine.store.registry import LOST, SERVING, PeerRecord, Registry

TOKENS_MAX_UNKNOWN = 2048  # before a first verifier has said what it takes

log = structlog.get_logger()


class Catalog:
    """The served model and the peers. `tokens_max` 0 leaves the length to the verifiers.

    A verifier whose tokenizer is not ours, or whose model is not that of the others, does not count: schedulers leave
    it out as well. The first one decides, unless another serves the very model that the gateway was given.
    """

    def __init__(self, registry: Registry, fingerprint: str, model_id: str, facts: ModelFacts) -> None:
        self.fingerprint = fingerprint
        self._registry = registry
        self._model_id = model_id
        self._facts = facts
        self._peers: tuple[PeerRecord, ...] = ()
        self._target_id: str | None = None
        self._tokens_max = TOKENS_MAX_UNKNOWN
        self._misfits: set[str] = set()

    async def views(self) -> AsyncIterator[tuple[PeerRecord, ...]]:
        """The registry's watch, remembered on its way."""
        async for peers in self._registry.watch():
            self._peers = peers
            self._settle()
            yield peers

    async def peers(self) -> tuple[PeerRecord, ...]:
        """All peers now; as they were last seen while Redis is away."""
        try:
            return await self._registry.peers()
        except Unavailable:
            return self._peers

    def facts(self) -> ModelFacts:
        """The target. Raises Mismatch where no verifier has our tokenizer: its tokens would be other texts."""
        serving = [peer for peer in self._peers if peer.role == "verifier" and peer.state == SERVING]
        if serving and not any(self._is_spoken(verifier) for verifier in serving):
            raise self._misunderstood(serving[0])
        tokens_max = self._facts.tokens_max or self._tokens_max
        return ModelFacts(self._facts.vocab_size, tokens_max, self._facts.eos_token_ids)

    def _settle(self) -> None:
        """Decides on the target where that is open, and names verifiers that do not hold it, each once.

        What the verifiers take holds as well while none of them serves: those that restart will take it again.
        """
        verifiers = [peer for peer in self._peers if peer.role == "verifier" and peer.state != LOST]
        spoken = [verifier.model_id for verifier in verifiers if self._is_spoken(verifier)]
        if self._model_id in spoken:
            self._target_id = self._model_id
        elif self._target_id is None and spoken:
            self._target_id = spoken[0]
        told = [peer.tokens_max for peer in verifiers if peer.state == SERVING and self._fits(peer) and peer.tokens_max]
        self._tokens_max = min(told, default=self._tokens_max)
        misfits = {verifier.peer_id: verifier for verifier in verifiers if not self._fits(verifier)}
        for peer_id in misfits.keys() - self._misfits:
            self._name(misfits[peer_id])
        self._misfits = set(misfits)

    def _is_spoken(self, verifier: PeerRecord) -> bool:
        return verifier.tokenizer_fingerprint == self.fingerprint

    def _fits(self, verifier: PeerRecord) -> bool:
        return self._is_spoken(verifier) and verifier.model_id == self._target_id

    def _name(self, verifier: PeerRecord) -> None:
        log.error(
            "verifier ignored",
            verifier=verifier.peer_id,
            model_id=verifier.model_id,
            tokenizer=verifier.tokenizer_fingerprint[:16],
            expected_model_id=self._target_id or self._model_id,
            expected_tokenizer=self.fingerprint[:16],
            reason="all verifiers of a mesh serve one model; to change it, stop the mesh and start it with the other",
        )

    def _misunderstood(self, verifier: PeerRecord) -> Mismatch:
        return Mismatch(
            "TOKENIZER_MISMATCH",
            f"verifier {verifier.peer_id!r} serves {verifier.model_id!r} with tokenizer "
            f"{verifier.tokenizer_fingerprint[:16]}, this gateway speaks {self.fingerprint[:16]}; "
            "start both with the same model",
            {"verifier": verifier.tokenizer_fingerprint, "gateway": self.fingerprint},
        )
