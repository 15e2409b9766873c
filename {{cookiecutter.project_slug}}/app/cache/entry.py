"""Entries: what is stored under a key, as bytes.

An entry is a fixed header (format version, times), the generations of its tags at the time its data
was read, and a payload. Never pickle: whoever can write to Redis must not be able to run code here.
Bytes that do not decode are a miss.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

GENERATION_BYTES = 16

_HEADER = struct.Struct(">4sBQQQQII")
_MAGIC = b"fce1"


@dataclass(slots=True)
class Entry:
    """A stored payload. Times are milliseconds since the Unix epoch, by the clock of who stored it.

    Served as fresh until `fresh_until`, as stale while one refresh runs until `stale_until`, and
    when the origin fails until `error_until`.
    """

    created: int
    fresh_until: int
    stale_until: int
    error_until: int
    compute_ms: int
    generations: bytes
    payload: bytes
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What readers made of the payload: all who share this entry need it made once."""

    def encode(self) -> bytes:
        header = _HEADER.pack(
            _MAGIC,
            len(self.generations) // GENERATION_BYTES,
            self.created,
            self.fresh_until,
            self.stale_until,
            self.error_until,
            self.compute_ms,
            len(self.payload),
        )
        return header + self.generations + self.payload

    @classmethod
    def decode(cls, raw: bytes) -> "Entry | None":
        if len(raw) < _HEADER.size:
            return None
        magic, tags, created, fresh, stale, error, compute, length = _HEADER.unpack_from(raw)
        start = _HEADER.size + tags * GENERATION_BYTES
        if magic != _MAGIC or len(raw) != start + length:
            return None
        return cls(created, fresh, stale, error, compute, raw[_HEADER.size : start], raw[start:])

    @property
    def size(self) -> int:
        """Bytes of memory, about: once it was read, it holds its payload twice."""
        return 2 * len(self.payload)
