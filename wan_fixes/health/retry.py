"""How long to wait before trying again."""

from __future__ import annotations

import random

LONGEST_WAIT_SECONDS = 30.0


def backoff_seconds(retry: int, base_seconds: float, rng: random.Random) -> float:
    """Seconds to wait before retry number `retry` (0 is the first): exponential backoff with full jitter.

    A uniform draw from 0 to ``base_seconds * 2**retry``, at most `LONGEST_WAIT_SECONDS`. Full jitter keeps many loader
    threads from coming back all at once:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    # The exponent is bounded, since 2.0**1024 overflows.
    return rng.uniform(0.0, min(LONGEST_WAIT_SECONDS, base_seconds * 2.0 ** min(retry, 60)))
