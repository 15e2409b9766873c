"""What a client asks for besides the resource (RFC 9110): codings, conditions."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]

MAX_ACCEPT_ENCODING_BYTES = 256

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# RFC 9110 section 15.4.5, and what this cache says itself.
_NOT_MODIFIED = {
    b"age", b"cache-control", b"cache-status", b"content-location", b"etag", b"expires",
    b"last-modified", b"vary",
}  # fmt: skip


def accepts_gzip(headers: Mapping[bytes, bytes]) -> bool:
    """RFC 9110 section 12.5.3, for the one coding that is stored.

    Clients choose the value: only a short one is remembered, and a longer one is not looked at.
    """
    given = headers.get(b"accept-encoding")
    return given is not None and len(given) <= MAX_ACCEPT_ENCODING_BYTES and _accepts_gzip(given)


@lru_cache(maxsize=1024)
def _accepts_gzip(accept_encoding: bytes) -> bool:
    weights: dict[str, float] = {}
    for item in accept_encoding.decode("latin-1").lower().split(","):
        coding, _, parameters = item.partition(";")
        weight = parameters.strip().removeprefix("q=")
        try:
            weights[coding.strip()] = float(weight) if parameters.strip() else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    default = weights.get("*", 0.0)
    return weights.get("gzip", weights.get("x-gzip", default)) > 0


def not_modified(headers: Headers, asked: Mapping[bytes, bytes]) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match decides; If-Modified-Since counts only without it."""
    given, if_none_match = dict(headers), asked.get(b"if-none-match")
    if if_none_match:
        etag = given.get(b"etag", b"")
        if if_none_match in (etag, b"*"):
            return True
        return etag.removeprefix(b"W/") in _ENTITY_TAG.findall(if_none_match)
    modified, if_modified_since = given.get(b"last-modified"), asked.get(b"if-modified-since")
    if not if_modified_since or modified is None:
        return False
    changed, known = _date(modified), _date(if_modified_since)
    return changed is not None and known is not None and changed <= known


def headers_of_304(headers: Headers) -> Headers:
    return [pair for pair in headers if pair[0] in _NOT_MODIFIED]


def lifetime(expires: bytes, date: bytes) -> int:
    """Seconds from Date, or from now, to Expires (RFC 9111 section 5.3: no date has expired)."""
    until, since = _date(expires), _date(date) or datetime.now(UTC)
    return max(0, int((until - since).total_seconds())) if until is not None else 0


def values_of(headers: Headers, wanted: bytes) -> bytes:
    """All its lines as one list (RFC 9110 section 5.3)."""
    return b", ".join(value for name, value in headers if name == wanted)


def joined(headers: Headers) -> dict[bytes, bytes]:
    """Each name once, with `values_of` it."""
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lines.setdefault(name, []).append(value)
    return {name: b", ".join(values) for name, values in lines.items()}


def age_of(headers: Headers) -> int:
    given = values_of(headers, b"age")
    return int(given) if given.isdigit() else 0


def tokens(headers: Headers, wanted: bytes) -> set[str]:
    """The names in a comma-separated header, without their arguments, in lower case."""
    values = values_of(headers, wanted).decode("latin-1")
    return {item.split("=")[0].strip().lower() for item in values.split(",")} - {""}


def _date(value: bytes) -> datetime | None:
    """RFC 9110 section 5.6.7: also in the forms of RFC 850 and of asctime, which has no zone."""
    try:
        date = parsedate_to_datetime(value.decode("latin-1"))
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
