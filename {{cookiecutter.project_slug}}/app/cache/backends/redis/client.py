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

        def answered(answers: list[Any]) -> None:
            result = read(answers)
            if not future.done():  # a caller that was cancelled
                future.set_result(result)

        def failed(error: CacheUnavailable) -> None:
            if not future.done():
                future.set_exception(error)

        self.send(operation, commands, answered, failed)
        return future

    def send(
        self,
        operation: str,
        commands: Sequence[Command],
        on_answers: OnAnswers,
        on_error: Callable[[CacheUnavailable], None],
    ) -> None:
        """`on_answers` gets no refusals: each of them is an error."""

        def answered(answers: list[Any], *, again: bool = False) -> None:
            refusal = next((each for each in answers if isinstance(each, ReplyError)), None)
            if refusal is None:
                on_answers(answers[len(scripts.LOAD) :] if again else answers)
                self._breaker.succeeded()
            elif not again and str(refusal).startswith("NOSCRIPT"):  # all commands may be repeated
                once_more = [*scripts.LOAD, *commands]
                self._connection.send(once_more, partial(answered, again=True), failed)
            else:
                self._refused(operation, refusal)
                on_error(_unavailable(operation, refusal))

        def failed(error: Exception) -> None:
            self._breaker.failed(operation, error, at_once=operation in INVALIDATIONS)
            on_error(_unavailable(operation, error))

        self._connection.send(commands, answered, failed)

    def _refused(self, operation: str, refusal: ReplyError) -> None:
        """A server that is out of memory still takes invalidations, so what it has may be used.
        Any other refusal means that it takes none."""
        full = str(refusal).startswith("OOM") and operation not in INVALIDATIONS
        self._breaker.failed(operation, refusal, at_once=not full, counts=not full)
        if "READONLY" in str(refusal):  # it was demoted: the address may lead to the master by now
            self._connection.lose(ConnectionError(str(refusal)))


def _unavailable(operation: str, error: Exception) -> CacheUnavailable:
    if isinstance(error, CacheUnavailable):
        return error
    unavailable = CacheUnavailable(f"{operation}: {error!r}")
    unavailable.__cause__ = error
    return unavailable
