"""Responses as they are stored and sent: status, prepared headers, body, and a gzip variant.

A payload holds everything that a hit sends, ready made: two header blocks (identity and gzip),
each with its ETag and Content-Length, and the two bodies. Header lines are joined by CR LF, which
no header name or value can contain. HTTP semantics here are those of RFC 9110 and RFC 9111.
"""

import re
import struct
from collections.abc import Sequence
from gzip import compress
from hashlib import blake2b
from typing import NamedTuple

from app.cache.negotiation import Headers, tokens
from app.cache.policy import Policy

# Below this, gzip saves less than a network packet.
GZIP_MIN_BYTES = 1024
GZIP_LEVEL = 5

_LAYOUT = struct.Struct(">HIII")
_SENTINEL = b"\r\n"
_COMPRESSIBLE = re.compile(rb"text/|application/([\w.+-]+\+)?(json|xml|javascript)")
# Made anew for each answer, or about this connection alone (RFC 9110 section 7.6.1).
_NOT_STORED = {
    b"age", b"cache-control", b"cache-status", b"connection", b"content-length", b"date", b"etag",
    b"keep-alive", b"server", b"transfer-encoding", b"vary",
}  # fmt: skip


class Response(NamedTuple):
    status: int
    headers: Headers
    body: bytes


def why_not_stored(response: Response, policy: Policy) -> str | None:
    """The reason this response must not be stored; None when it may be.

    The status comes last: where that is the reason, who waits for the same may have it as well.
    """
    headers = response.headers
    if any(name == b"set-cookie" for name, _ in headers):
        return "set-cookie"
    if {"no-store", "private"} & tokens(headers, b"cache-control") and not policy.per_user:
        return "cache-control"
    if "no-store" in tokens(headers, b"cache-control"):
        return "cache-control"
    if tokens(headers, b"vary") - set(policy.vary):
        return "vary"
    if any(name == b"content-range" for name, _ in headers):
        return "partial"
    if any(_SENTINEL in name or _SENTINEL in value for name, value in headers):
        return "header"
    if response.status != 200 and not (response.status == 404 and policy.expire_not_found):
        return "status"
    return None


def encode(response: Response, policy: Policy) -> bytes:
    """The payload of a response that may be stored."""
    body, given = response.body, dict(response.headers)
    etag = given.get(b"etag") or b'"%s"' % blake2b(body, digest_size=16).hexdigest().encode()
    control = given.get(b"cache-control", policy.browser.encode())
    if policy.per_user and "private" not in tokens(response.headers, b"cache-control"):
        control = b"private, " + control
    kept = [(name, value) for name, value in response.headers if name not in _NOT_STORED]
    compressed = _gzip(response)
    vary = [*policy.vary, *(["accept-encoding"] if compressed else [])]
    head = [*kept, (b"cache-control", control)]
    if vary:
        head.append((b"vary", ", ".join(vary).encode()))
    identity = _block([(b"etag", etag), *head, _content_length(body)])
    encoded = b""
    if compressed:
        coding = (b"content-encoding", b"gzip")
        encoded = _block([(b"etag", _suffixed(etag)), *head, coding, _content_length(compressed)])
    layout = _LAYOUT.pack(response.status, len(identity), len(encoded), len(body))
    return layout + identity + encoded + body + compressed


def encode_as_it_is(response: Response) -> bytes:
    """The payload of a response that is only handed to who waits for it now."""
    block = _block(response.headers)
    layout = _LAYOUT.pack(response.status, len(block), 0, len(response.body))
    return layout + block + response.body


def decode(payload: bytes, *, gzip: bool) -> Response:
    """The variant to send. Raises ValueError or struct.error for bytes that are no payload."""
    status, identity, encoded, body = _LAYOUT.unpack_from(payload)
    start = _LAYOUT.size
    bodies = start + identity + encoded
    if gzip and encoded:
        block, content = payload[start + identity : bodies], payload[bodies + body :]
    else:
        block, content = payload[start : start + identity], payload[bodies : bodies + body]
    lines = iter(block.split(_SENTINEL))
    return Response(status, list(zip(lines, lines, strict=True)) if block else [], content)


def _gzip(response: Response) -> bytes:
    given = dict(response.headers)
    if len(response.body) < GZIP_MIN_BYTES or b"content-encoding" in given:
        return b""
    if not _COMPRESSIBLE.match(given.get(b"content-type", b"")):
        return b""
    compressed = compress(response.body, GZIP_LEVEL, mtime=0)
    return compressed if len(compressed) < len(response.body) else b""


def _suffixed(etag: bytes) -> bytes:
    """RFC 9110 section 8.8.3.3: a strong ETag differs for each content coding."""
    return etag if etag.startswith(b"W/") else etag[:-1] + b'-gzip"'


def _content_length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _SENTINEL.join(part for pair in headers for part in pair)
