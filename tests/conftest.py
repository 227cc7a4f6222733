"""What surrounds whoever runs the tests does not reach them: no settings, collectors or proxies, and no hurry.

Hypothesis bounds no example in time: a busy machine is no finding.
"""

from __future__ import annotations

import os

from hypothesis import settings

for _name in [*os.environ]:
    if _name.startswith(("COSINE_", "OTEL_")) or _name.lower().endswith("_proxy"):
        del os.environ[_name]

settings.register_profile("cosine", deadline=None)
settings.load_profile("cosine")
