"""Keys: the part of a request that decides what the answer is.

Parts are length-prefixed before they are hashed, so no choice of delimiters inside a value can make
two different requests share a key (BLAKE2b, RFC 7693, 128 bits).
"""

from collections.abc import Iterable
from hashlib import blake2b

MAX_QUERY_BYTES = 4096


def digest(parts: Iterable[bytes]) -> str:
    """128 bits in hex over the parts, each with its length before it."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return hashed.hexdigest()
