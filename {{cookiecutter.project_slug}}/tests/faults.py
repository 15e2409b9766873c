"""TCP proxies between the service and its servers: one really delays, keeps silent, cuts and
resets, one lets answers of Redis through one by one, one lies, one holds COMMITs back.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import hiredis

Fault = Literal["none", "delay", "late", "silence", "drip", "cut", "reset", "refuse"]
Proxy = TypeVar("Proxy", bound="FaultProxy")
DELAY_SECONDS, DRIP_SECONDS = 0.2, 0.01
# PostgreSQL reads what has arrived before the connection is closed.
COMMIT_READ_SECONDS = 0.05


class FaultProxy:
    """Passes bytes on, as `fault` says; it may change at any time, also for open connections."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self.fault: Fault = "none"
        self.late_seconds = 0.0
        """How much later what is sent arrives, each way, with the fault `late`. Unlike `delay`, it
        does not hold up what comes after it."""
        self.port = 0
        self.connections = 0
        self.held_back, self.holding = b"", asyncio.Event()

    def hold_back(self, question: bytes) -> None:
        """What holds these bytes stays here, with all that comes after it, until `let_through`,
        however long its sender is gone by then."""
        self.held_back = question
        self.holding.clear()

    def let_through(self) -> None:
        self.held_back = b""
        self._changed.set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._abort()
            await self._server.wait_closed()
            self._server = None

    async def become(self, fault: Fault) -> None:
        self.fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault == "refuse":
            await self.stop()
        elif self._server is None:
            await self.start()
        if fault in ("cut", "reset"):
            self._abort()

    async def lead_to(self, url: str) -> None:
        """From now on to another server. Open connections are reset."""
        self._target = _address(url)
        await self.become("reset")
        await self.become("none")

    def _abort(self) -> None:
        for writer in self._writers:
            if self.fault == "reset" and not writer.is_closing():
                linger = struct.pack("ii", 1, 0)  # close() then sends RST, not FIN
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        if self.fault in ("cut", "reset"):
            self._abort()
        # Cancelled at the end of a run: asyncio of Python 3.11 would print a traceback.
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            self._writers.add(server_writer)
            await asyncio.gather(
                self._pump(reader, server_writer), self._pump(server_reader, writer)
            )
        for each in (writer, *({server_writer} if "server_writer" in locals() else ())):
            self._writers.discard(each)
            each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            while self.fault == "silence":
                await self._changed.wait()
            while self.held_back and self.held_back in data:
                self.holding.set()
                await self._changed.wait()
            if self.fault == "delay":
                await asyncio.sleep(DELAY_SECONDS)
            if self.fault == "late":
                asyncio.get_running_loop().call_later(self.late_seconds, writer.write, data)
            elif self.fault == "drip":
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(DRIP_SECONDS)
            else:
                writer.write(data)
            await writer.drain()
        writer.transport.abort()


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
async def fault_proxy(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """The proxy in front of the server at `url`, and the URL that leads through it."""
    async with _started(FaultProxy, url) as proxy_and_url:
        yield proxy_and_url


@asynccontextmanager
async def commit_proxy(url: str) -> AsyncIterator[tuple[CommitProxy, str]]:
    """The proxy in front of the PostgreSQL at `url`, and the URL that leads through it."""
    async with _started(CommitProxy, url) as proxy_and_url:
        yield proxy_and_url


@asynccontextmanager
async def liar(url: str) -> AsyncIterator[tuple[Liar, str]]:
    """The liar in front of the Redis at `url`, and the URL that leads through it."""
    async with _started(Liar, url) as liar_and_url:
        yield liar_and_url


@asynccontextmanager
async def valve(url: str) -> AsyncIterator[tuple[Valve, str]]:
    """The valve in front of the server at `url`, and the URL that leads through it."""
    async with _started(Valve, url) as valve_and_url:
        yield valve_and_url


@asynccontextmanager
async def _started(kind: type[Proxy], url: str) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = kind(*_address(url))
    await proxy.start()
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    try:
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}"))
    finally:
        await proxy.stop()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
