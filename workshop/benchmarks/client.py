"""A small HTTP client on raw sockets: the load generator where `wrk` is missing, and what asks for
each page of a list once.

As a load generator it is a process of its own (`python -m benchmarks.client`, see `load.py`). It
costs more per request than the service does, so its figures say more about Python than about the
service; ratios between them still point the right way.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

HOST = "127.0.0.1"
STATUS = slice(9, 12)  # of "HTTP/1.1 200 OK"
HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
BODILESS_STATUSES = {204, 304}
# After the last answer is due; a server that is silent for so long has failed.
PATIENCE_SECONDS = 30.0


class LoadError(Exception):
    """A run that measured errors, and so measured nothing."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """What a run saw. The latencies are sorted."""

    seconds: float
    each_ms: Sequence[float]

    def percentile_ms(self, percent: float) -> float:
        return percentile(self.each_ms, percent)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values that is not exceeded by `percent` of them (nearest rank)."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


async def ask_for(seconds: float, port: int, connections: int, requests: list[bytes]) -> Latencies:
    """Goes round the requests for so long, on so many connections. Raises LoadError."""
    return await _Run(port, cycle(requests), time.perf_counter() + seconds).on(connections)


async def ask_once(port: int, connections: int, requests: list[bytes]) -> Latencies:
    """Sends each request once. Raises LoadError."""
    return await _Run(port, iter(requests), float("inf")).on(min(connections, len(requests)))


class _Run:
    def __init__(self, port: int, requests: Iterator[bytes], deadline: float) -> None:
        self._port, self._requests, self._deadline = port, requests, deadline
        self._each_ms: list[float] = []
        self._open = 0
        self._transports: list[asyncio.BaseTransport] = []
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on(self, connections: int) -> Latencies:
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        self._open = connections
        try:
            for _ in range(connections):
                made = await loop.create_connection(lambda: _Connection(self), HOST, self._port)
                self._transports.append(made[0])
            left = self._deadline - began
            async with asyncio.timeout(left + PATIENCE_SECONDS if left < float("inf") else None):
                await self._over
        except (OSError, TimeoutError) as error:
            raise LoadError(f"the server does not answer: {error!r}") from error
        finally:
            for transport in self._transports:
                transport.close()
        return Latencies(time.perf_counter() - began, sorted(self._each_ms))

    def next(self) -> bytes | None:
        if self._over.done() or time.perf_counter() >= self._deadline:
            return None
        return next(self._requests, None)

    def answered(self, status: int, seconds: float) -> None:
        if not 200 <= status < 400:
            self.fail(f"an answer had the status {status}")
        self._each_ms.append(seconds * 1000)

    def closed(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._over.done():
            self._over.set_result(None)

    def fail(self, why: str) -> None:
        if not self._over.done():
            self._over.set_exception(LoadError(why))


class _Connection(asyncio.Protocol):
    """One request at a time, and the next one when it has been answered."""

    _transport: asyncio.Transport

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._sent: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: those of uvloop are of no class of asyncio.
        self._transport = cast(asyncio.Transport, transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(HEAD_END)
        if head_end < 0 or self._sent is None:
            return
        status = int(self._received[STATUS])
        length = CONTENT_LENGTH.search(self._received, 0, head_end + 2)
        if length is None and status not in BODILESS_STATUSES:
            self._run.fail("an answer had no Content-Length, which this client needs")
            return
        body = int(length[1]) if length and status not in BODILESS_STATUSES else 0
        if len(self._received) < head_end + len(HEAD_END) + body:
            return
        self._run.answered(status, time.perf_counter() - self._sent)
        self._received, self._sent = b"", None
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent is not None:
            self._run.fail(f"a connection was closed before its answer: {exc!r}")
        self._run.closed()

    def _send_next(self) -> None:
        request = self._run.next()
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


def main() -> int:
    """The plan comes as JSON on standard input, the result goes as JSON to standard output."""
    plan = json.load(sys.stdin)
    requests = [text.encode() for text in plan["requests"]]
    run = ask_for(plan["seconds"], plan["port"], plan["connections"], requests)
    try:
        seen: Latencies = _fast_loop().run(run)
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    result = {
        "completed": len(seen.each_ms),
        "per_second": len(seen.each_ms) / seen.seconds,
        "p50_ms": seen.percentile_ms(50),
        "p99_ms": seen.percentile_ms(99),
    }
    json.dump(result, sys.stdout)
    return 0


def _fast_loop() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio
    return uvloop


if __name__ == "__main__":
    sys.exit(main())
