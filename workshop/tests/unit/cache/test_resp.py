"""Replies of Redis, in whatever pieces they arrive, and those that are refused."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Connection

from app.cache.backends.redis.resp import MAX_REPLY_BYTES, Socket


class Transport:
    """As much of a transport and of redis-py's connection as a socket looks at."""

    transport: "Transport"

    def __init__(self) -> None:
        self.transport = self._writer = self

    def get_protocol(self) -> asyncio.Protocol:
        return asyncio.Protocol()

    def set_protocol(self, _: asyncio.Protocol) -> None: ...

    def is_closing(self) -> bool:
        return False


def received(data: bytes, size: int) -> list[Any]:
    """The replies, when the data come in pieces of this size, and what the socket is lost by."""
    came: list[Any] = []
    socket = Socket(cast(Connection, Transport()), came.append, lambda _, error: came.append(error))
    for start in range(0, len(data), size):
        if came and isinstance(came[-1], Exception):
            break
        socket.data_received(data[start : start + size])
    return came


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


# Looks like the head of a long array, and is a text.
BODY = b"*1234567\r\nabc\r\n*1234567\r\n>12345678\r\n*12"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 1000])
def test_replies_are_the_same_in_whatever_pieces_they_arrive(size: int) -> None:
    replies = [[BODY, None], b"OK", [BODY, BODY], 12, []]
    data = b"*2\r\n%b$-1\r\n+OK\r\n*2\r\n%b%b:12\r\n*0\r\n" % (3 * (bulk(BODY),))
    assert received(data, size) == replies


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 1000])
@pytest.mark.parametrize(
    "before", [b"", b"+OK\r\n", b"*2\r\n", b"*2\r\n" + bulk(BODY), b"*3\r\n*1\r\n:1\r\n"]
)
@pytest.mark.parametrize("head", [b"*4000000000\r\n", b">100000\r\n"])
def test_an_array_of_very_many_elements_is_refused_at_its_head(
    head: bytes, before: bytes, size: int
) -> None:
    *_, last = received(before + head, size)
    assert isinstance(last, Exception)


def test_a_reply_that_does_not_end_is_refused() -> None:
    chunk = b"x" * (MAX_REPLY_BYTES // 16)
    *replies, last = received(b"$536870912\r\n" + 20 * chunk, len(chunk))
    assert not replies
    assert isinstance(last, Exception)
