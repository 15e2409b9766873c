"""What a client asks for besides the resource (RFC 9110): codings, conditions."""

import re
from email.utils import parsedate_to_datetime
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# RFC 9110 section 15.4.5, and what this cache says itself.
_NOT_MODIFIED = {
    b"age", b"cache-control", b"cache-status", b"content-location", b"etag", b"expires",
    b"last-modified", b"vary",
}  # fmt: skip


@lru_cache(maxsize=1024)
def accepts_gzip(accept_encoding: bytes) -> bool:
    """RFC 9110 section 12.5.3, for the one coding that is stored."""
    if b"gzip" not in accept_encoding and b"*" not in accept_encoding:
        return False
    weights: dict[str, float] = {}
    for item in accept_encoding.decode("latin-1").lower().split(","):
        coding, _, parameters = item.partition(";")
        weight = parameters.strip().removeprefix("q=")
        try:
            weights[coding.strip()] = float(weight) if parameters.strip() else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def not_modified(headers: Headers, if_none_match: bytes, if_modified_since: bytes) -> bool:
    """RFC 9110 section 13.2.2: If-None-Match decides; If-Modified-Since counts only without it."""
    given = dict(headers)
    if if_none_match:
        etag = given.get(b"etag", b"")
        if if_none_match in (etag, b"*"):
            return True
        return etag.removeprefix(b"W/") in _ENTITY_TAG.findall(if_none_match)
    modified = given.get(b"last-modified")
    if not if_modified_since or modified is None:
        return False
    try:
        since = parsedate_to_datetime(if_modified_since.decode("latin-1"))
        return parsedate_to_datetime(modified.decode("latin-1")) <= since
    except (ValueError, TypeError):
        return False


def headers_of_304(headers: Headers) -> Headers:
    return [pair for pair in headers if pair[0] in _NOT_MODIFIED]


def tokens(headers: Headers, wanted: bytes) -> set[str]:
    """The names in a comma-separated header, without their arguments, in lower case."""
    values = b",".join(value for name, value in headers if name == wanted).decode("latin-1")
    return {item.split("=")[0].strip().lower() for item in values.split(",")} - {""}
