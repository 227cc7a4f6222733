"""Secrets in URLs, hidden before anybody reads them. It does not know what the URLs are for."""

from __future__ import annotations

import re

HIDDEN = "***"
# To the last @: an unquoted / or @ in a password makes the URL wrong, and the password no less a secret.
USER_INFO = re.compile(r"(://[^:@/?#]*):.*@", re.DOTALL)
QUERY = re.compile(r"([?&][^=&]*(?:password|passwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def mask(text: str) -> str:
    """A URL, or any other text, with the passwords of URLs in it hidden."""
    return USER_INFO.sub(rf"\1:{HIDDEN}@", QUERY.sub(rf"\1{HIDDEN}", text))
