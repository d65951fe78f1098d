"""One seed, many independent sources of chance, each by name."""

from __future__ import annotations

import hashlib


def further(number: int) -> tuple[int, ...]:
    """What names the use of one of several in `seed_for`; nothing for the first, which so is as it would be alone."""
    return (number,) if number else ()


def seed_for(seed: int, *names: object) -> int:
    """A 63-bit seed for one named use, for example `seed_for(0, "order", fold, epoch)`.

    Adding a new use, or drawing more often in one, leaves the others as they were.
    """
    text = ":".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
