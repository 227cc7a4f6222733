"""What `import cosine` offers: the client and every error it raises."""

from __future__ import annotations

import cosine
from cosine.core import errors


def test_every_typed_error_is_within_reach() -> None:
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    typed = {name: kind for name, kind in kinds.items() if issubclass(kind, errors.MeshError)}
    assert len(typed) > 5
    assert {name: getattr(cosine, name) for name in typed} == typed
    assert typed.keys() <= set(cosine.__all__)


def test_every_name_offered_exists_and_no_other() -> None:
    assert all(getattr(cosine, name).__name__ == name for name in cosine.__all__)
    assert not hasattr(cosine, "Gateway")


def test_a_listing_of_the_package_shows_its_offer_alone() -> None:
    assert dir(cosine) == sorted(cosine.__all__)
