"""Seeds derived from names: the same on any machine, independent of order, never global."""

import hashlib
import json


def digest_of(*parts: str | int) -> bytes:
    """SHA-256 of the parts, each kept apart from its neighbours."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on the parts only."""
    return int.from_bytes(digest_of(*parts)[:8], "big") >> 1
