import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.http import negotiation
from app.cache.http.negotiation import accepts_gzip, headers_of_304, joined, not_modified

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
        (b"", b"Saturday, 21-Nov-26 10:00:00 GMT", True),
        (b"", b"Saturday, 21-Nov-26 09:59:59 GMT", False),
        (b"", b"Sat Nov 21 10:00:00 2026", True),
        (b"", b"Sat Nov 21 09:59:59 2026", False),
        (b"", b"", False),
    ],
)
def test_conditional_requests(
    if_none_match: bytes, if_modified_since: bytes, expected: bool
) -> None:
    asked = {b"if-none-match": if_none_match, b"if-modified-since": if_modified_since}
    assert not_modified(ETAG, asked) is expected


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_arbitrary_conditions_never_raise(if_none_match: bytes, if_modified_since: bytes) -> None:
    asked = {b"if-none-match": if_none_match, b"if-modified-since": if_modified_since}
    assert not_modified(ETAG, asked) in (True, False)


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
        (b"GZIP", True),
        (b"x-gzip", True),
        (b"Br, GZip;Q=0.5", True),
        (b"GZIP;Q=0", False),
        (b"identity", False),
        (b"gzip;q=0", False),
        (b"gzip;q=0, *", False),
        (b"gzip;q=much", False),
        (b"", False),
    ],
)
def test_accept_encoding(header: bytes, expected: bool) -> None:
    assert accepts_gzip({b"accept-encoding": header}) is expected


def test_a_long_accept_encoding_is_neither_read_nor_remembered() -> None:
    before = negotiation._accepts_gzip.cache_info().currsize
    assert not accepts_gzip({b"accept-encoding": b"gzip, " + b"x" * 1_000_000})
    assert negotiation._accepts_gzip.cache_info().currsize == before


def test_the_lines_of_a_header_are_one_list() -> None:
    """RFC 9110 section 5.3."""
    assert joined([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1, 3", b"b": b"2"}


def test_many_lines_are_joined_in_no_time() -> None:
    lines = [(b"%d" % (number // 2), b"x") for number in range(16_000)]
    started = time.process_time()
    assert len(joined(lines)) == 8_000
    assert time.process_time() - started < 0.5
