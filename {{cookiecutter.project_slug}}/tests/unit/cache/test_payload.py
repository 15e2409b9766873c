import gzip

import pytest

from app.cache.payload import Response, decode, encode, why_not_stored
from app.cache.policy import Policy

POLICY = Policy(60)
JSON = (b"content-type", b"application/json")


def stored(response: Response, *, accepts_gzip: bool = False, policy: Policy = POLICY) -> Response:
    return decode(encode(response, policy), gzip=accepts_gzip)


def header(response: Response, name: bytes) -> bytes | None:
    return dict(response.headers).get(name)


def test_the_etag_that_an_endpoint_sets_is_kept() -> None:
    assert header(stored(Response(200, [JSON, (b"etag", b'"v1"')], b"{}")), b"etag") == b'"v1"'


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
        (Response(200, [JSON], b""), None),
    ],
)
def test_what_may_not_be_stored_is_not(response: Response, reason: str | None) -> None:
    assert why_not_stored(response, POLICY) == reason


def test_a_404_is_stored_when_the_policy_says_so() -> None:
    assert why_not_stored(Response(404, [], b""), Policy(60, expire_not_found=5)) is None
