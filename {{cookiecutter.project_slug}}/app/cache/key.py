"""Keys: the part of a request that decides what the answer is.

Parts are length-prefixed before they are hashed, so no choice of delimiters inside a value can make
two different requests share a key (BLAKE2b, RFC 7693, 128 bits).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from urllib.parse import parse_qsl

MAX_QUERY_BYTES = 4096


def digest(parts: Iterable[bytes]) -> str:
    """128 bits in hex over the parts, each with its length before it."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return hashed.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class QueryParameter:
    """A declared query parameter: whether it may repeat, and its default as a client writes it."""

    repeats: bool
    default: str | None


def canonical_query(
    raw: bytes, declared: Mapping[str, QueryParameter]
) -> list[tuple[str, list[str]]]:
    """The declared parameters by name, as the handler will see them.

    Undeclared names are dropped, a parameter that does not repeat keeps its last value (what
    FastAPI reads), and a value equal to the default is as good as none.
    """
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        parameter = declared.get(name)
        if parameter is None:
            continue
        if parameter.repeats:
            found.setdefault(name, []).append(value)
        else:
            found[name] = [value]
    return sorted(
        (name, values)
        for name, values in found.items()
        if len(values) > 1 or values[0] != declared[name].default
    )


def query_parts(query: list[tuple[str, list[str]]]) -> Iterable[bytes]:
    for name, values in query:
        yield name.encode()
        yield len(values).to_bytes(4)
        for value in values:
            yield value.encode()
