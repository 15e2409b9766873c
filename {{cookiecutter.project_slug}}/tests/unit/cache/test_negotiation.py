import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.negotiation import accepts_gzip, headers_of_304, not_modified

ETAG = [(b"etag", b'"a"'), (b"last-modified", b"Sat, 21 Nov 2026 10:00:00 GMT")]


@pytest.mark.parametrize(
    ("if_none_match", "if_modified_since", "expected"),
    [
        (b'"a"', b"", True),
        (b'W/"a"', b"", True),
        (b"*", b"", True),
        (b'"x", W/"y" , "a"', b"", True),
        (b'"b"', b"", False),
        (b"a", b"", False),
        (b'"b"', b"Sat, 21 Nov 2026 10:00:00 GMT", False),
        (b"", b"Sat, 21 Nov 2026 10:00:00 GMT", True),
        (b"", b"Sat, 21 Nov 2026 09:59:59 GMT", False),
        (b"", b"yesterday", False),
        (b"", b"", False),
    ],
)
def test_conditional_requests(
    if_none_match: bytes, if_modified_since: bytes, expected: bool
) -> None:
    assert not_modified(ETAG, if_none_match, if_modified_since) is expected


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_arbitrary_conditions_never_raise(if_none_match: bytes, if_modified_since: bytes) -> None:
    assert not_modified(ETAG, if_none_match, if_modified_since) in (True, False)


def test_a_304_repeats_what_rfc_9110_asks_for() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"etag", b'"a"'),
        (b"cache-control", b"no-cache"),
        (b"vary", b"x"),
        (b"x", b"y"),
    ]
    assert headers_of_304(headers) == headers[1:4]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"gzip", True),
        (b"br, gzip;q=0.5", True),
        (b"*", True),
        (b"identity", False),
        (b"gzip;q=0", False),
        (b"gzip;q=0, *", False),
        (b"gzip;q=much", False),
        (b"", False),
    ],
)
def test_accept_encoding(header: bytes, expected: bool) -> None:
    assert accepts_gzip(header) is expected
