"""Finds stop strings in a text that arrives in pieces, as if it had been read character by character.

The match that is complete first wins; of matches complete at the same character, the longest. Text is cut before the
match, and nothing is shown that may still turn out to begin one. Where the pieces are cut makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """State of one text. `found` is the stop string that ended it, or None."""

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would end every text before it begins"
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """The text that may be shown now. Nothing more comes once a stop string was found."""
        if self.found is not None:
            return ""
        text = self._held + text
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            _, at, self.found = min(matches)
            self._held = ""
            return text[:at]
        cut = len(text) - self._undecided(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, at the end of a text in which no stop string came."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for count in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0
