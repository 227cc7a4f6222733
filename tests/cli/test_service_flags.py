"""The flags that a mesh file may give are those of the services, no more and no less."""

from __future__ import annotations

import pytest
from pydantic_settings import BaseSettings

from cosine.cli.meshfile import MeshSpec
from cosine.cli.roster import roster
from cosine.cli.service_flags import FLAGS, check_flags
from services.drafter.__main__ import DrafterSettings
from services.fusion.__main__ import FusionSettings
from services.gateway.settings import GatewaySettings
from services.scheduler.__main__ import SchedulerSettings
from services.verifier.__main__ import VerifierSettings

SETTINGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "fusion": FusionSettings,
    "drafter": DrafterSettings,
    "verifier": VerifierSettings,
}


@pytest.mark.parametrize("role", SETTINGS)
def test_the_flags_of_a_role_are_its_settings(role: str) -> None:
    assert FLAGS[role] == SETTINGS[role].model_fields.keys()


def test_there_is_no_role_besides() -> None:
    assert FLAGS.keys() == SETTINGS.keys()


def test_a_flag_may_be_written_as_on_a_command_line() -> None:
    check_flags("gateway", "gateway", ["waiting-max", "waiting_max"])
    spec = MeshSpec(target="toy", options={"gateway": {"waiting-max": 8}})
    assert "--waiting-max=8" in roster(spec)[0].arguments
