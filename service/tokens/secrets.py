"""The random part of tokens and sessions: made here, stored only as a hash.

A secret has 256 random bits, so a plain SHA-256 of it can neither be searched nor looked up; the slow hashes that
passwords need would only slow every request down.
"""

import hashlib
import hmac
import secrets

PREFIX = "mw_"
"""Lets scanners for leaked secrets recognise one."""
SECRET_BYTES = 32


def new_secret() -> str:
    """A new token's secret; shown once, kept nowhere."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    """SHA-256 of a secret, 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def keyed_hash(key: str, secret: str) -> str:
    """HMAC-SHA-256 of a secret: worth nothing to whoever knows only the store, and void with another key."""
    return hmac.new(key.encode(), secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    """Whether two hashes are equal, in time that tells nothing about where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())
