"""RESP over a socket: replies, one by one, within bounds.

hiredis parses. At the head of an array it makes room for as many elements as the head announces,
and frees them all in the end: ten digits stop the process for seconds. Such an array is refused at
its head, and a reply that does not end is refused at MAX_REPLY_BYTES.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio import Connection as RedisPyConnection

# Sixteen entries of the greatest size; the time of a command ends before more can arrive.
MAX_REPLY_BYTES = 128 * 1024 * 1024
MAX_DIGITS = 5

# It begins with a letter, which is looked for 20 times as fast as an alternative.
_LONG_HEAD = re.compile(rb"\n[*>]\d{%d}" % (MAX_DIGITS + 1))
_UNFINISHED_HEAD = re.compile(rb"(?:\A|\n)([*>]\d*)\Z")
_UNFINISHED_BYTES = MAX_DIGITS + 3
_INCOMPLETE = object()


class ProtocolError(Exception):
    """What came is no answer of Redis, or not one to what was asked."""


class Socket(asyncio.Protocol):
    """Takes over the socket of a connection that redis-py has made."""

    def __init__(
        self,
        connection: RedisPyConnection,
        receive: Callable[[Any], None],
        lost: Callable[["Socket", Exception], None],
    ) -> None:
        self.connection, self._receive, self._lost = connection, receive, lost
        self._parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._unanswered = 0
        self._held_back = b""
        # No public attribute of redis-py has the transport.
        self.transport: Any = connection._writer.transport  # type: ignore[union-attr]
        self._streams = self.transport.get_protocol()
        self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._held_back or not data.endswith(b"\n"):
                data = self._with_whole_heads(data)
            self._refuse_long_arrays(data)
        except (hiredis.ProtocolError, ProtocolError) as error:
            self._lost(self, error)

    def connection_lost(self, error: Exception | None) -> None:
        self._streams.connection_lost(error)
        self._lost(self, error or ConnectionError("the server hung up"))

    def _feed(self, data: bytes) -> None:
        self._unanswered += len(data)
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not _INCOMPLETE:
            if self.transport.is_closing():
                return
            self._unanswered = 0
            self._receive(answer)
        if self._unanswered > MAX_REPLY_BYTES:
            raise ProtocolError(f"a reply of more than {MAX_REPLY_BYTES} bytes")

    def _with_whole_heads(self, data: bytes) -> bytes:
        """What was held back, and the data without a head at its end that is not complete."""
        data, self._held_back = self._held_back + data, b""
        if head := _UNFINISHED_HEAD.search(data, max(0, len(data) - _UNFINISHED_BYTES)):
            self._held_back = head[1]
            return data[: head.start(1)]
        return data

    def _refuse_long_arrays(self, data: bytes) -> None:
        """In a text that looks like a head, the parser still has something to complete."""
        start = 0
        for head in _LONG_HEAD.finditer(b"\n" + data):
            self._feed(data[start : head.start()])
            start = head.start()
            if not self._parser.has_data():
                raise ProtocolError(f"an array of {head[0][2:].decode()}… elements")
        self._feed(data[start:])
