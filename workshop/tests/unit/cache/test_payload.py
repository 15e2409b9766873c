import gzip
from random import Random

import pytest

from app.cache.http.payload import Response, decode, encode, why_not_stored
from app.cache.policy import Policy
from app.cache.store import MAX_PAYLOAD_BYTES

POLICY = Policy(60)
JSON = (b"content-type", b"application/json")


def stored(response: Response, *, accepts_gzip: bool = False, policy: Policy = POLICY) -> Response:
    return decode(encode(response, policy), gzip=accepts_gzip)


def header(response: Response, name: bytes) -> bytes | None:
    return dict(response.headers).get(name)


def test_an_etag_begins_with_that_of_the_endpoint_and_tells_all_that_is_shown_apart() -> None:
    version = (b"etag", b'"v1"')
    shown = [
        Response(200, [JSON, version], b'{"name": "Mars"}'),
        Response(200, [JSON, version], b'{"name": "Mars", "moons": 2}'),
        Response(200, [JSON, version], b'{"name": "Mars", "moons": 3}'),
        Response(200, [(b"content-type", b"text/plain"), version], b'{"name": "Mars"}'),
    ]
    etags = [header(stored(response), b"etag") or b"" for response in shown]
    assert len(set(etags)) == 4
    assert all(etag.startswith(b'"v1-') and etag.endswith(b'"') for etag in etags)
    assert header(stored(shown[0]), b"etag") == etags[0]


@pytest.mark.parametrize("nonsense", [b"v1", b'"', b""])
def test_an_etag_without_quotes_is_none(nonsense: bytes) -> None:
    with_one = stored(Response(200, [JSON, (b"etag", nonsense)], b"{}"))
    assert header(with_one, b"etag") == header(stored(Response(200, [JSON], b"{}")), b"etag")


def test_a_weak_etag_of_the_endpoint_is_its_own_word() -> None:
    weak = (b"etag", b'W/"v1"')
    assert header(stored(Response(200, [JSON, weak], b"{}")), b"etag") == weak[1]


def test_identical_bytes_have_the_same_strong_etag() -> None:
    one, other = (header(stored(Response(200, [JSON], b"{}")), b"etag") for _ in range(2))
    assert one == other
    assert one is not None and one.startswith(b'"')


def test_a_large_body_is_stored_compressed_under_an_etag_of_its_own() -> None:
    response = Response(200, [JSON], b"a" * 5000)
    plain, zipped = stored(response), stored(response, accepts_gzip=True)
    assert gzip.decompress(zipped.body) == plain.body == response.body
    assert header(zipped, b"content-encoding") == b"gzip"
    assert header(zipped, b"etag") != header(plain, b"etag")
    assert header(zipped, b"vary") == header(plain, b"vary") == b"accept-encoding"
    assert header(zipped, b"content-length") == str(len(zipped.body)).encode()


def test_a_small_or_binary_body_has_one_variant() -> None:
    small = Response(200, [JSON], b"{}")
    image = Response(200, [(b"content-type", b"image/png")], b"a" * 5000)
    for response in (small, image):
        assert stored(response, accepts_gzip=True).body == response.body
        assert header(stored(response), b"vary") is None


LARGE = b"a" * 5000


def test_what_may_not_be_transformed_is_not_compressed() -> None:
    """RFC 9111 section 5.2.2.6."""
    for lines in ([b"max-age=5, No-Transform"], [b"no-transform", b"max-age=5"]):
        response = Response(200, [JSON, *((b"cache-control", line) for line in lines)], LARGE)
        assert stored(response, accepts_gzip=True).body == LARGE


@pytest.mark.parametrize("name", [b"content-digest", b"repr-digest", b"content-md5"])
def test_a_digest_is_sent_with_the_bytes_that_it_is_of(name: bytes) -> None:
    """RFC 9530 sections 2 and 3: both digests are of the content as it is coded."""
    response = Response(200, [JSON, (name, b"x")], LARGE)
    assert header(stored(response), name) == b"x"
    assert header(stored(response, accepts_gzip=True), name) is None


def test_all_lines_of_cache_control_are_kept() -> None:
    """RFC 9110 section 5.3."""
    lines = [(b"cache-control", b"max-age=5"), (b"cache-control", b"must-revalidate")]
    control = header(stored(Response(200, [JSON, *lines], b"")), b"cache-control")
    assert control == b"max-age=5, must-revalidate"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"expires": "Sat, 21 Nov 2026 10:01:00 GMT"}, b"max-age=60"),
        ({"expires": "0"}, b"max-age=0"),
        ({"expires": "Sat, 21 Nov 2026 09:00:00 GMT"}, b"max-age=0"),
        ({"expires": "0", "cache-control": "must-revalidate"}, b"must-revalidate, max-age=0"),
        ({"expires": "0", "cache-control": "max-age=5"}, b"max-age=5"),
        ({}, b"no-cache"),
    ],
)
def test_expires_counts_from_the_age_of_a_hit(headers: dict[str, str], expected: bytes) -> None:
    """RFC 9111 section 5.3: with max-age, Expires is ignored; Date is that of the server."""
    given = {"date": "Sat, 21 Nov 2026 10:00:00 GMT"} | headers
    response = stored(Response(200, [(n.encode(), v.encode()) for n, v in given.items()], b""))
    assert header(response, b"cache-control") == expected
    assert header(response, b"expires") is header(response, b"date") is None


def test_a_payload_is_never_larger_than_what_is_stored() -> None:
    noise = (
        Random(1).randbytes(MAX_PAYLOAD_BYTES // 3 * 2).hex().encode()[: MAX_PAYLOAD_BYTES // 3 * 2]
    )
    response = Response(200, [JSON], noise)
    assert why_not_stored(response, POLICY) is None
    assert len(encode(response, POLICY)) <= MAX_PAYLOAD_BYTES
    assert stored(response, accepts_gzip=True).body == noise


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(200, [(b"set-cookie", b"a=b")], b""), "set-cookie"),
        (Response(200, [(b"cache-control", b"no-store")], b""), "cache-control"),
        (Response(200, [(b"cache-control", b'private="x"')], b""), "cache-control"),
        (Response(200, [(b"vary", b"*")], b""), "vary"),
        (Response(200, [(b"vary", b"Accept-Language")], b""), "vary"),
        (Response(206, [(b"content-range", b"bytes 0-1/2")], b""), "partial"),
        (Response(200, [(b"content-range", b"bytes 0-1/2")], b""), "partial"),
        (Response(404, [], b""), "status"),
        (Response(500, [], b""), "status"),
        (Response(200, [(b"x", b"a\r\nset-cookie: b")], b""), "header"),
        (Response(200, [JSON], bytes(MAX_PAYLOAD_BYTES)), "too large"),
        (Response(200, [(b"x", bytes(MAX_PAYLOAD_BYTES // 2))], b""), "too large"),
        (Response(200, [JSON], b""), None),
    ],
)
def test_what_may_not_be_stored_is_not(response: Response, reason: str | None) -> None:
    assert why_not_stored(response, POLICY) == reason


def test_a_404_is_stored_when_the_policy_says_so() -> None:
    assert why_not_stored(Response(404, [], b""), Policy(60, expire_not_found=5)) is None
