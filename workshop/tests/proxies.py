"""Proxies of particular malice: one holds COMMITs back, one lies, one lets answers of Redis through
one by one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import hiredis

from tests.faults import FaultProxy, proxy_of

# PostgreSQL reads what has arrived before the connection is closed.
COMMIT_READ_SECONDS = 0.05


class CommitProxy(FaultProxy):
    """In front of PostgreSQL: COMMITs arrive so much later, also when their client has left."""

    delay_seconds = 0.0

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            late = self.delay_seconds if b"COMMIT" in data else 0.0
            await asyncio.sleep(late)
            writer.write(data)
            await writer.drain()
            if late:
                await asyncio.sleep(COMMIT_READ_SECONDS)
        writer.transport.abort()


class Liar(FaultProxy):
    """Answers what is asked with `about` itself, with `lie`."""

    lie, about = b"", b""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._clients: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[reader] = writer
        await super()._serve(reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = self._clients.get(reader)
        while data := await reader.read(65536):
            if client is not None and self.lie and self.about in data:
                client.write(self.lie)
            else:
                writer.write(data)
        writer.transport.abort()


class Valve(FaultProxy):
    """Holds back what Redis says over the connection that it sends news by, and lets it through
    by the piece: each answer, each push, in order. Other connections are not held.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.holds: Literal["nothing", "everything", "news"] = "nothing"
        """News also holds what comes after it."""
        self.pieces: list[bytes] = []
        self.answered_bytes = 0
        self.replaced = (b"HELLO", b"HELLO")
        """What is written over in questions, and by what."""
        self._clients: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}
        self._held: asyncio.StreamWriter | None = None
        self._parser, self._piece = hiredis.Reader(), b""

    @property
    def holds_news(self) -> bool:
        return any(_is_news(piece) for piece in self.pieces)

    def let_answers_through(self) -> None:
        """Those before the first push."""
        while self.pieces and not _is_news(self.pieces[0]):
            self._let_through(self.pieces.pop(0))

    def open(self) -> None:
        for piece in self.pieces:
            self._let_through(piece)
        self.pieces.clear()
        self.holds = "nothing"

    def _let_through(self, piece: bytes) -> None:
        assert self._held is not None
        self._held.write(piece)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[reader] = writer
        await super()._serve(reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = self._clients.get(reader)
        while data := await reader.read(65536):
            if client is not None:
                if b"TRACKING" in data:
                    self._held = client
                writer.write(data.replace(*self.replaced))
                continue
            self.answered_bytes += len(data)
            if self.holds == "nothing" or writer is not self._held:
                writer.write(data)
            else:
                self._hold(data)
        writer.transport.abort()

    def _hold(self, data: bytes) -> None:
        for number in data:
            byte = bytes([number])
            self._piece += byte
            self._parser.feed(byte)
            if self._parser.gets() is False:  # not complete
                continue
            self.pieces.append(self._piece)
            self._piece = b""
        if self.holds == "news":
            self.let_answers_through()


def _is_news(piece: bytes) -> bool:
    return piece.startswith(b">")


@asynccontextmanager
async def commit_proxy(url: str) -> AsyncIterator[tuple[CommitProxy, str]]:
    """The proxy in front of the PostgreSQL at `url`, and the URL that leads through it."""
    async with proxy_of(CommitProxy, url) as proxy_and_url:
        yield proxy_and_url


@asynccontextmanager
async def liar(url: str) -> AsyncIterator[tuple[Liar, str]]:
    """The liar in front of the Redis at `url`, and the URL that leads through it."""
    async with proxy_of(Liar, url) as liar_and_url:
        yield liar_and_url


@asynccontextmanager
async def valve(url: str) -> AsyncIterator[tuple[Valve, str]]:
    """The valve in front of the server at `url`, and the URL that leads through it."""
    async with proxy_of(Valve, url) as valve_and_url:
        yield valve_and_url
