"""The connection to Redis: one socket, commands pipelined, their answers in order, pushes between.

redis-py costs more per command than Redis does. It only connects here (TLS, AUTH, SELECT), then the
socket gets a protocol of ours. A command that is not answered in time ends the connection: answers
have no names, so none can be skipped. The next command opens another one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import hiredis
from redis.asyncio import Connection as RedisPyConnection

from app.cache.local import LocalTier

Command = Sequence[str | bytes | int]

_INCOMPLETE = object()

log = logging.getLogger("app.cache")


@dataclass(slots=True)
class _Call:
    """Commands that were sent together, and what becomes of them."""

    packed: bytes
    number: int
    on_answers: Callable[[list[Any]], None]
    on_error: Callable[[Exception], None]
    timer: asyncio.TimerHandle
    sent: float = field(default_factory=time.monotonic)
    answers: list[Any] = field(default_factory=list)


class Connection:
    """`connect` gives a connection that is ready; `timeout` is in seconds, from sending to the last
    answer. The local tier is told of pushes, of answers, and of the end of a connection."""

    def __init__(
        self, connect: Callable[[], Awaitable[RedisPyConnection]], local: LocalTier, timeout: float
    ) -> None:
        self._connect, self._local, self._timeout = connect, local, timeout
        self._socket: _Socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Call] = deque()
        self._asked = self.tracks = False

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # until Python 3.12 a system call each time

    def send(
        self,
        commands: Sequence[Command],
        on_answers: Callable[[list[Any]], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """One of the two is called, when the answers are there; a refused command is answered with
        a `hiredis.ReplyError`."""
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
        timer = self.loop.call_later(self._timeout, self._time_out)
        self._waiting.append(_Call(packed, len(commands), on_answers, on_error, timer))
        if self._socket is not None:
            self._socket.transport.write(packed)
        elif self._opening is None:
            self._opening = self.loop.create_task(self._open())

    def execute(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """The answers. Raises what went wrong with the connection, TimeoutError in silence."""
        future: asyncio.Future[list[Any]] = self.loop.create_future()

        def answered(answers: list[Any]) -> None:
            if not future.done():
                future.set_result(answers)

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.send(commands, answered, failed)
        return future

    def track(self, prefix: str) -> None:
        """From now on Redis pushes the keys with this prefix that change."""
        if not self._asked:
            self._asked = True
            tracking = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
            self.send([("HELLO", "3"), tracking], self._tracking, lambda _: None)

    @property
    def idle(self) -> bool:
        return self._socket is not None and not self._waiting

    async def aclose(self) -> None:
        self._fail(ConnectionError("the cache is closed"))
        if self._closing:
            await asyncio.wait(self._closing)

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # on a broken connection redis-py raises more than its own
            self._opening = None
            self._fail(error)
        else:
            self._opening = None
            self._socket = _Socket(connection, self._receive, self._lost)
            self._socket.transport.write(b"".join([call.packed for call in self._waiting]))

    def _receive(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            self._push(answer)
            return
        call = self._waiting[0]
        call.answers.append(answer)
        if len(call.answers) == call.number:
            self._waiting.popleft()
            call.timer.cancel()
            if self.tracks:
                self._local.prove(call.sent)
            try:
                call.on_answers(call.answers)
            except Exception as error:  # who waits is told, then the event loop closes the socket
                call.on_error(error)
                raise

    def _push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # everything was flushed
            self._local.forget_all()
        else:
            for name in message[1]:
                self._local.forget(name.decode(errors="replace"))

    def _tracking(self, answers: list[Any]) -> None:
        hello, tracking = answers
        # To a client that does not speak RESP3, Redis says OK and pushes nothing.
        self.tracks = tracking == b"OK" and not isinstance(hello, hiredis.ReplyError)
        if not self.tracks:
            log.warning("no local hits: the cache server refuses to push changes: %s", answers)

    def _time_out(self) -> None:
        self._fail(TimeoutError(f"no answer within {self._timeout:g} s"))

    def _lost(self, socket: "_Socket") -> None:
        if socket is self._socket:
            self._fail(ConnectionError("the server hung up"))

    def _fail(self, error: Exception) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._close(self._opening)
        if self._socket is not None:
            self._socket.transport.abort()  # at once: a late answer is not for the next command
            disconnect = self._socket.connection.disconnect(nowait=True)
            self._close(self.loop.create_task(disconnect))
        self._opening = self._socket = None
        self._asked = self.tracks = False
        self._local.forget_all()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.timer.cancel()
            call.on_error(error)

    def _close(self, task: asyncio.Task[None]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Socket(asyncio.Protocol):
    def __init__(
        self,
        connection: RedisPyConnection,
        receive: Callable[[Any], None],
        lost: Callable[["_Socket"], None],
    ) -> None:
        self.connection, self._receive, self._lost = connection, receive, lost
        self._parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        # No public attribute of redis-py has the transport.
        self.transport: Any = connection._writer.transport  # type: ignore[union-attr]
        self._streams = self.transport.get_protocol()
        self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not _INCOMPLETE:
            self._receive(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._streams.connection_lost(error)
        self._lost(self)
