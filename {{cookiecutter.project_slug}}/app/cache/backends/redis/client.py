"""Commands to one server, behind a breaker: answers, or CacheUnavailable.

All that goes to Redis and comes from it passes here, so that failures are told apart, counted and
translated once.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from hiredis import ReplyError

from app.cache.backends.base import CacheUnavailable
from app.cache.backends.redis import scripts
from app.cache.backends.redis.breaker import Breaker
from app.cache.backends.redis.connection import Connection, OnAnswers
from app.cache.backends.redis.scripts import Command

R = TypeVar("R")
OnError = Callable[[CacheUnavailable], None]
# When one of these is not taken, readers cannot be told of writes.
INVALIDATIONS = ("hold", "release")


class Client:
    def __init__(self, connection: Connection, breaker: Breaker) -> None:
        self._connection, self._breaker = connection, breaker

    def call(
        self, operation: str, commands: Sequence[Command], read: Callable[[list[Any]], R]
    ) -> "asyncio.Future[R]":
        """What `read` makes of the answers. It raises for answers that make no sense."""
        self._breaker.check()
        return self.try_call(operation, commands, read)

    def try_call(
        self, operation: str, commands: Sequence[Command], read: Callable[[list[Any]], R]
    ) -> "asyncio.Future[R]":
        """As `call`, although the breaker may be open."""
        future: asyncio.Future[R] = self._connection.loop.create_future()
        self.send(operation, commands, partial(_settle, future, read), partial(_fail, future))
        return future

    def send(
        self,
        operation: str,
        commands: Sequence[Command],
        on_answers: OnAnswers,
        on_error: OnError,
        *,
        again: bool = False,
    ) -> None:
        """`on_answers` gets no refusals: each of them is an error."""
        # No closures: one that names itself is a cycle, and garbage that only the collector finds.
        answered = partial(self._answered, operation, commands, on_answers, on_error, again)
        failed = partial(self._failed, operation, on_error)
        sent = [*scripts.LOAD, *commands] if again else commands
        self._connection.send(sent, answered, failed)

    def _answered(
        self,
        operation: str,
        commands: Sequence[Command],
        on_answers: OnAnswers,
        on_error: OnError,
        again: bool,
        answers: list[Any],
    ) -> None:
        refusal = next((each for each in answers if isinstance(each, ReplyError)), None)
        if refusal is None:
            on_answers(answers[len(scripts.LOAD) :] if again else answers)
            self._breaker.succeeded()
        elif not again and str(refusal).startswith("NOSCRIPT"):  # all commands may be repeated
            self.send(operation, commands, on_answers, on_error, again=True)
        else:
            self._refused(operation, refusal)
            on_error(_unavailable(operation, refusal))

    def _failed(self, operation: str, on_error: OnError, error: Exception) -> None:
        self._breaker.failed(operation, error, at_once=operation in INVALIDATIONS)
        on_error(_unavailable(operation, error))

    def _refused(self, operation: str, refusal: ReplyError) -> None:
        """A server that is out of memory still takes invalidations, so what it has may be used.
        Any other refusal means that it takes none."""
        full = str(refusal).startswith("OOM") and operation not in INVALIDATIONS
        self._breaker.failed(operation, refusal, at_once=not full, counts=not full)
        if "READONLY" in str(refusal):  # it was demoted: the address may lead to the master by now
            self._connection.lose(ConnectionError(str(refusal)))


def _settle(
    future: "asyncio.Future[R]", read: Callable[[list[Any]], R], answers: list[Any]
) -> None:
    result = read(answers)
    if not future.done():  # a caller that was cancelled
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: CacheUnavailable) -> None:
    if not future.done():
        future.set_exception(error)


def _unavailable(operation: str, error: Exception) -> CacheUnavailable:
    if isinstance(error, CacheUnavailable):
        return error
    unavailable = CacheUnavailable(f"{operation}: {error!r}")
    unavailable.__cause__ = error
    return unavailable
