"""Machine parks with round numbers, and the shipped recordings."""

from functools import cache
from pathlib import Path

from cosine.sim.library import Library
from cosine.sim.profile import DrafterDevice, Link, Profile, VerifierDevice
from cosine.sim.recording import Variant, read_recording

RECORDINGS = Path(__file__).parents[2] / "testbed" / "recordings"
DRAFTERS = ("general", "code", "math", "prose", "sql")
VERIFIER = VerifierDevice("large", 1, 1000.0, 20.0, 0.25, 1.0)
DRAFTER = DrafterDevice("small", 1, 100.0, 2.0, 0.125, 0.5)
FAST = Link(0.5, 1e9)  # so wide that sizes do not matter


def park(verifier_count: int = 1, drafters: tuple[str, ...] = DRAFTERS, link: Link = FAST) -> Profile:
    """One large machine (or more) and small ones."""
    pools = dict.fromkeys(drafters, DRAFTER)
    return Profile("test", "made up for tests", 1.0, VERIFIER, pools, link, link, verifier_count)


@cache
def library(variant: Variant = Variant.GREEDY) -> Library:
    """The shipped recording of greedy texts, or of sampled ones."""
    recording = read_recording(RECORDINGS, variant)
    return Library(recording, read_recording(RECORDINGS, Variant.UNSHARED) if variant is Variant.SHARED else None)
