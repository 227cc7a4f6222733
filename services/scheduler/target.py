"""Which verifiers hold the mesh's one target: a text must not depend on which of them judged it.

The first verifier that speaks the gateway's tokenizer decides, unless another one serves the very model that the
gateway names. What was decided stays decided when its verifiers leave: they may come back in the middle of a text.
"""

from __future__ import annotations

import structlog

from cosine.rpc.hello import Identity

log = structlog.get_logger()


class Target:
    """Knows gateways and verifiers by what their Hello says; it sends nothing."""

    def __init__(self) -> None:
        self._gateway: Identity | None = None
        self._chosen: Identity | None = None
        self._verifiers: dict[str, Identity] = {}
        self._refused: dict[str, Identity] = {}

    @property
    def vocab_size(self) -> int:
        """How many tokens the target knows; 0 while there is none."""
        return 0 if self._chosen is None else self._chosen.vocab_size

    def gateway_came(self, gateway: Identity) -> None:
        """The first gateway that says which tokenizer it speaks is believed."""
        if self._gateway is None and gateway.tokenizer_fingerprint:
            self._gateway = gateway

    def verifier_came(self, verifier: Identity) -> None:
        """A verifier is up."""
        self._verifiers[verifier.peer_id] = verifier

    def verifier_left(self, peer_id: str) -> None:
        """A verifier is gone."""
        self._verifiers.pop(peer_id, None)
        self._refused.pop(peer_id, None)

    def fitting(self) -> set[str]:
        """Ids of the verifiers to use. The others are named in the log, each once."""
        self._choose()
        fitting = {name for name, verifier in self._verifiers.items() if self._fits(verifier)}
        for name, verifier in self._verifiers.items():
            if name in fitting:
                self._refused.pop(name, None)
            elif name not in self._refused:
                self._refused[name] = verifier
                self._name_misfit(verifier)
        return fitting

    def _choose(self) -> None:
        candidates = [verifier for verifier in self._verifiers.values() if self._is_spoken(verifier)]
        named = [verifier for verifier in candidates if self._is_named(verifier)]
        if self._chosen is None or not self._is_spoken(self._chosen) or (named and not self._is_named(self._chosen)):
            self._chosen = next(iter(named or candidates), None)

    def _fits(self, verifier: Identity) -> bool:
        return self._chosen is not None and _model(verifier) == _model(self._chosen)

    def _is_spoken(self, verifier: Identity) -> bool:
        return self._gateway is None or verifier.tokenizer_fingerprint == self._gateway.tokenizer_fingerprint

    def _is_named(self, verifier: Identity) -> bool:
        return self._gateway is not None and verifier.model_id == self._gateway.model_id

    def _name_misfit(self, verifier: Identity) -> None:
        ours = self._chosen or self._gateway
        assert ours is not None
        log.error(
            "verifier left out",
            verifier=verifier.peer_id,
            model_id=verifier.model_id,
            tokenizer=verifier.tokenizer_fingerprint[:16],
            expected_from=ours.peer_id,
            expected_model_id=ours.model_id,
            expected_tokenizer=ours.tokenizer_fingerprint[:16],
            reason="all verifiers of a mesh serve one model; to change it, stop the mesh and start it with the other",
        )


def _model(peer: Identity) -> tuple[str, str, int]:
    return peer.model_id, peer.tokenizer_fingerprint, peer.vocab_size
