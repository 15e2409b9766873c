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
from itertools import chain
from typing import NamedTuple

from app.cache.http.negotiation import Headers, lifetime, tokens, values_of
from app.cache.policy import Policy
from app.cache.store import MAX_PAYLOAD_BYTES

# Below this, gzip saves less than a network packet.
GZIP_MIN_BYTES = 1024
GZIP_LEVEL = 5

_LAYOUT = struct.Struct(">HIII")
_SENTINEL = b"\r\n"
_COMPRESSIBLE = re.compile(rb"text/|application/([\w.+-]+\+)?(json|xml|javascript)")
# Made anew for each answer, or about one connection (RFC 9110 section 7.6.1), or not kept by a hit:
# a hit has no ranges, Date is the server's, and Expires becomes max-age.
_NOT_STORED = {
    b"accept-ranges", b"cache-control", b"connection", b"content-length", b"date", b"etag",
    b"expires", b"keep-alive", b"server", b"transfer-encoding", b"vary",
}  # fmt: skip
# About the content as it is coded (RFC 9530 sections 2 and 3; RFC 2616 section 14.15).
_DIGESTS = {b"content-digest", b"content-md5", b"repr-digest"}


class Response(NamedTuple):
    status: int
    headers: Headers
    body: bytes


def why_not_stored(response: Response, policy: Policy) -> str | None:
    """The reason this response must not be stored; None when it may be."""
    headers = response.headers
    if any(name == b"set-cookie" for name, _ in headers):
        return "set-cookie"
    control = tokens(headers, b"cache-control")
    if "no-store" in control or ("private" in control and not policy.per_user):
        return "cache-control"
    if tokens(headers, b"vary") - set(policy.vary):
        return "vary"
    if any(name == b"content-range" for name, _ in headers):
        return "partial"
    if any(_SENTINEL in name or _SENTINEL in value for name, value in headers):
        return "header"
    if _size(response) > MAX_PAYLOAD_BYTES:
        return "too large"
    # The last reason that is looked for: where it is the one, who waits for the same may have it.
    if response.status != 200 and not (response.status == 404 and policy.expire_not_found):
        return "status"
    return None


def encode(response: Response, policy: Policy) -> bytes:
    """The payload of a response that may be stored."""
    body, etag = response.body, _etag(response)
    kept = [pair for pair in response.headers if pair[0] not in _NOT_STORED]
    compressed = _gzip(response)
    head = [*kept, (b"cache-control", _cache_control(response, policy))]
    vary = [*policy.vary, *(["accept-encoding"] if compressed else [])]
    if vary:
        head.append((b"vary", ", ".join(vary).encode()))
    identity = _block([(b"etag", etag), *head, _content_length(body)])
    encoded = b""
    if compressed:
        head = [pair for pair in head if pair[0] not in _DIGESTS]
        coding = (b"content-encoding", b"gzip")
        encoded = _block([(b"etag", _suffixed(etag)), *head, coding, _content_length(compressed)])
    layout = _LAYOUT.pack(response.status, len(identity), len(encoded), len(body))
    return layout + identity + encoded + body + compressed


def encode_as_it_is(response: Response, policy: Policy) -> bytes:
    """The payload of a response that is only handed to who waits for it now."""
    block = _block(for_one_user(response.headers) if policy.per_user else response.headers)
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


def _size(response: Response) -> int:
    """Bytes of its payload without compression, at most: with it the headers are there twice."""
    return 1024 + 2 * sum(map(len, chain.from_iterable(response.headers))) + len(response.body)


def _etag(response: Response) -> bytes:
    """RFC 9110 section 8.8.1: a strong ETag names the bytes.

    An endpoint's own names a version of a row, which outlives a field that is added to the response
    model and knows nothing of other tables. So a hash of what is shown is added to it: what stands
    before the dash is for If-Match, the whole for If-None-Match.
    """
    given = values_of(response.headers, b"etag")
    if given.startswith(b"W/"):
        return given
    shown = blake2b(values_of(response.headers, b"content-type"), digest_size=16)
    shown.update(response.body)
    digest = shown.hexdigest().encode()
    quoted = len(given) > 1 and given.startswith(b'"') and given.endswith(b'"')
    return b'%s-%s"' % (given[:-1], digest[:16]) if quoted else b'"%s"' % digest


def _cache_control(response: Response, policy: Policy) -> bytes:
    """The endpoint's own, where it has one, else that of the policy.

    Expires becomes max-age (RFC 9111 section 5.3), which counts from Age and not from a Date that
    the server makes anew for each hit.
    """
    given = values_of(response.headers, b"cache-control")
    names = tokens(response.headers, b"cache-control")
    expires = values_of(response.headers, b"expires")
    if expires and not {"max-age", "s-maxage"} & names:
        max_age = b"max-age=%d" % lifetime(expires, values_of(response.headers, b"date"))
        given = b"%s, %s" % (given, max_age) if given else max_age
    control = given or policy.browser.encode()
    return _private(control) if policy.per_user else control


def _private(control: bytes) -> bytes:
    """For one user: without what lets others have it (RFC 9111 section 5.2.2)."""
    items = [item.strip() for item in control.split(b",") if item.strip()]
    kept = [item for item in items if not item.lower().startswith((b"public", b"s-maxage"))]
    return b", ".join(kept if b"private" in kept else [b"private", *kept])


def for_one_user(headers: Headers) -> Headers:
    """The headers of an answer that is not stored: no other cache may keep it for others."""
    control = _private(values_of(headers, b"cache-control"))
    return [*(pair for pair in headers if pair[0] != b"cache-control"), (b"cache-control", control)]


def _gzip(response: Response) -> bytes:
    """Nothing where compression is not allowed (RFC 9111 section 5.2.2.6), or does not pay."""
    body, headers = response.body, response.headers
    if len(body) < GZIP_MIN_BYTES or values_of(headers, b"content-encoding"):
        return b""
    if "no-transform" in tokens(headers, b"cache-control"):
        return b""
    if not _COMPRESSIBLE.match(values_of(headers, b"content-type")):
        return b""
    compressed = compress(body, GZIP_LEVEL, mtime=0)
    fits = _size(response) + len(compressed) <= MAX_PAYLOAD_BYTES
    return compressed if fits and len(compressed) < len(body) else b""


def _suffixed(etag: bytes) -> bytes:
    """RFC 9110 section 8.8.3.3: a strong ETag differs for each content coding."""
    return etag if etag.startswith(b"W/") else etag[:-1] + b'-gzip"'


def _content_length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _SENTINEL.join(part for pair in headers for part in pair)
