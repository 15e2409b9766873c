"""A TCP proxy between the service and its servers: it really delays, keeps silent, cuts, resets."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

Fault = Literal["none", "delay", "late", "silence", "drip", "cut", "reset", "refuse"]
Proxy = TypeVar("Proxy", bound="FaultProxy")
DELAY_SECONDS, DRIP_SECONDS = 0.2, 0.01


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


@asynccontextmanager
async def fault_proxy(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """The proxy in front of the server at `url`, and the URL that leads through it."""
    async with proxy_of(FaultProxy, url) as proxy_and_url:
        yield proxy_and_url


@asynccontextmanager
async def proxy_of(kind: type[Proxy], url: str) -> AsyncIterator[tuple[Proxy, str]]:
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
