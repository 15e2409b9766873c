"""The connection to Redis: one socket, commands pipelined, their replies in order, pushes between.

redis-py costs more per command than Redis does. It only connects here (TLS, AUTH, SELECT), then the
socket gets a protocol of ours (resp.py). Replies carry no ids, so a late one cannot be matched: a
command that is not answered in time ends the connection, as does an answer that makes no sense.
The next command opens another one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import hiredis
from redis.asyncio import Connection as RedisPyConnection

from app.cache.backends.base import CacheUnavailable
from app.cache.backends.redis.resp import ProtocolError, Socket
from app.cache.backends.redis.scripts import Command

OnAnswers = Callable[[list[Any]], None]
OnError = Callable[[Exception], None]

log = logging.getLogger("app.cache")


class Listener(Protocol):
    """What is told of pushes, of answers (to a command that was sent then, by `monotonic`), and of
    the end of a connection."""

    def pushed(self, message: list[Any]) -> None: ...
    def answered(self, sent: float) -> None: ...
    def lost(self) -> None: ...


@dataclass(slots=True)
class _Call:
    """Commands that were sent together, and what becomes of them."""

    packed: bytes
    number: int
    on_answers: OnAnswers
    on_error: OnError
    timer: asyncio.TimerHandle
    sent: float = field(default_factory=time.monotonic)
    answers: list[Any] = field(default_factory=list)


class Connection:
    """`connect` gives a connection that is open. `hello` is the first that is sent over it, and
    nothing else is before `welcome` has had the answers, and not raised. `timeout` is in seconds,
    from sending to the last answer."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[RedisPyConnection]],
        listener: Listener,
        hello: Sequence[Command],
        welcome: OnAnswers,
        timeout: float,
    ) -> None:
        self._connect, self._listener, self._timeout = connect, listener, timeout
        self._hello, self._welcome = hello, welcome
        self._socket: Socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Call] = deque()
        self.is_open = False
        """Whether the server has been asked, and may be used."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # until Python 3.12 a system call each time

    @property
    def idle(self) -> bool:
        return self.is_open and not self._waiting

    def send(self, commands: Sequence[Command], on_answers: OnAnswers, on_error: OnError) -> None:
        """One of the two is called, when the answers are there; a refused command is answered with
        a `hiredis.ReplyError`. When `on_answers` raises, the answers were nonsense: the connection
        ends."""
        call = self._call(commands, on_answers, on_error)
        self._waiting.append(call)
        if self.is_open:
            assert self._socket is not None
            self._socket.transport.write(call.packed)
        elif self._socket is None and self._opening is None:
            self._opening = self.loop.create_task(self._open())

    def lose(self, error: Exception) -> None:
        """Ends the connection, and everything that waits for it."""
        if self._opening is not None:
            self._opening.cancel()
            self._close(self._opening)
        if self._socket is not None:
            self._socket.transport.abort()  # at once: a late answer is not for the next command
            disconnect = self._socket.connection.disconnect(nowait=True)
            self._close(self.loop.create_task(disconnect))
        self._opening = self._socket = None
        self.is_open = False
        self._listener.lost()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.timer.cancel()
            call.on_error(error)

    async def aclose(self) -> None:
        self.lose(ConnectionError("the cache is closed"))
        if self._closing:
            await asyncio.wait(self._closing)

    def _call(self, commands: Sequence[Command], on_answers: OnAnswers, on_error: OnError) -> _Call:
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
        timer = self.loop.call_later(self._timeout, self._time_out)
        return _Call(packed, len(commands), on_answers, on_error, timer)

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # on a broken connection redis-py raises more than its own
            self._opening = None
            self.lose(error)
            return
        self._opening = None
        self._socket = Socket(connection, self._receive, self._lost)
        hello = self._call(self._hello, self._begin, lambda _: None)
        self._waiting.appendleft(hello)
        self._socket.transport.write(hello.packed)

    def _begin(self, answers: list[Any]) -> None:
        self._welcome(answers)
        self.is_open = True
        if self._waiting and self._socket is not None:
            self._socket.transport.write(b"".join([call.packed for call in self._waiting]))

    def _receive(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            self._listener.pushed(answer)
            return
        if not self._waiting:
            raise ProtocolError(f"nothing was asked, and the answer is {answer!r:.80}")
        call = self._waiting[0]
        call.answers.append(answer)
        if len(call.answers) == call.number:
            self._waiting.popleft()
            call.timer.cancel()
            self._listener.answered(call.sent)
            try:
                call.on_answers(call.answers)
            except Exception as error:
                if not isinstance(error, ConnectionError | CacheUnavailable):
                    log.warning("the answer of the cache server makes no sense: %r", error)
                call.on_error(error)
                self.lose(error)

    def _time_out(self) -> None:
        self.lose(TimeoutError(f"no answer within {self._timeout:g} s"))

    def _lost(self, socket: Socket, error: Exception) -> None:
        if socket is self._socket:
            self.lose(error)

    def _close(self, task: asyncio.Task[None]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
