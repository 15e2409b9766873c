"""Entries: what is stored under a key, as bytes.

An entry is a fixed header (format version, times), the tags that it depends on with their
generations from before its data were read, and a payload. Never pickle: whoever can write to Redis
must not be able to run code here. Bytes that do not decode are a miss.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GENERATION_BYTES = 16
INCARNATION_BYTES = 8  # of these, the first: see server.py

_HEADER = struct.Struct(">4sHQQQQIII")
_MAGIC = b"fce2"
_BETWEEN_TAGS = "\n"  # in no tag: see `Tag.render`


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
    generations: Mapping[str, bytes]
    """By tag: what it depends on, which may be more than its route declares."""
    payload: bytes
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What readers made of the payload: all who share this entry need it made once."""

    def encode(self) -> bytes:
        tags = _BETWEEN_TAGS.join(self.generations).encode()
        header = _HEADER.pack(
            _MAGIC,
            len(self.generations),
            self.created,
            self.fresh_until,
            self.stale_until,
            self.error_until,
            self.compute_ms,
            len(tags),
            len(self.payload),
        )
        return b"".join([header, *self.generations.values(), tags, self.payload])

    @classmethod
    def decode(cls, raw: bytes) -> "Entry | None":
        if len(raw) < _HEADER.size:
            return None
        magic, count, created, fresh, stale, error, compute, named, length = _HEADER.unpack_from(
            raw
        )
        names = _HEADER.size + count * GENERATION_BYTES
        start = names + named
        if magic != _MAGIC or len(raw) != start + length:
            return None
        try:
            tags = raw[names:start].decode().split(_BETWEEN_TAGS)
        except UnicodeDecodeError:
            return None
        each = range(_HEADER.size, names, GENERATION_BYTES)
        generations = dict(
            zip(tags, [raw[at : at + GENERATION_BYTES] for at in each], strict=False)
        )
        if len(generations) != count or len(tags) != count:
            return None
        return cls(created, fresh, stale, error, compute, generations, raw[start:])

    @property
    def size(self) -> int:
        """Bytes of memory, about: once it was read, it holds its payload twice."""
        return 2 * len(self.payload)
