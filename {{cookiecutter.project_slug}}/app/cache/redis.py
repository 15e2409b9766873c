"""The cache in Redis or Valkey: `redis://`, `rediss://`.

A call is bounded by a short timeout and is not repeated: with redis-py as it is one request can
wait a minute for a silent server. Lookups are in reader.py.
"""

import re
import secrets
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any

from hiredis import ReplyError
from redis.asyncio import Connection as RedisPyConnection
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache import scripts
from app.cache.backend import (
    GENERATION_SECONDS,
    HOLD_SECONDS,
    LOCK_SECONDS,
    REQUEST_BUDGET_SECONDS,
    Begun,
    CacheUnavailable,
    Found,
)
from app.cache.breaker import Breaker
from app.cache.connection import Command, Connection
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.local import LocalTier
from app.cache.metrics import Recorder
from app.cache.reader import Reader


class RedisBackend:
    """Keys: `<name>:e:<key>`, an entry; `<name>:g:{<tag>}`, `<name>:h:{<tag>}` and
    `<name>:l:{<tag>}:<key>`, the generation of a tag, its holders, and the locks of the entries
    whose first tag it is.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        recorder: Recorder,
        timeout: float = REQUEST_BUDGET_SECONDS,
    ) -> None:
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            client_name=f"{name}-cache",
            # A connection is made in two commands instead of five.
            protocol=2,
            driver_info=None,
        )
        self._name = name
        self._breaker = Breaker(self._probe, recorder)
        self._local = LocalTier()
        self._connection = Connection(self._connect, self._local, timeout)
        self._reader = Reader(
            self._connection, self._local, self._breaker, recorder, tracked=f"{name}:g:"
        )

    def read(self, key: str, tags: Sequence[str], local: float = 0) -> Awaitable[Found]:
        self._breaker.check()
        return self._reader.read(self._names(key, tuple(tags)), local)

    @lru_cache(maxsize=4096)  # noqa: B019 - a backend lives as long as the process
    def _names(self, key: str, tags: Sequence[str]) -> tuple[str, ...]:
        return (self._entry_key(key), *[self._tag_key("g", tag) for tag in tags])

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        lock, lock_life = self._lock_key(key, tags), _ms(LOCK_SECONDS)
        commands: list[Command] = []
        for number, tag in enumerate(tags):
            keys = [*self._tag_keys(tag), *([lock] if number == 0 else [])]
            generation = secrets.token_bytes(GENERATION_BYTES)
            life = _ms(GENERATION_SECONDS)
            commands.append(_eval(scripts.BEGIN, keys, generation, life, token, lock_life))
        commands.append(("MGET", self._entry_key(key)))  # unlike GET, no error for another type
        *answers, (raw,) = await self._call("begin", *commands)
        entry = Entry.decode(raw) if raw is not None else None
        generations = [generation for generation, _ in answers]
        joined = None if None in generations else b"".join(generations)
        return Begun(joined, bool(answers[0][1]), entry)

    async def store(
        self, key: str, tags: Sequence[str], entry: Entry, seconds: float, token: str = ""
    ) -> None:
        life = _ms(seconds)
        await self._call(
            "store",
            ("SET", self._entry_key(key), entry.encode(), "PX", life),
            *[_eval(scripts.KEEP, [self._tag_key("g", tag)], life) for tag in tags],
            *([_eval(scripts.RELOCK, [self._lock_key(key, tags)], token, 0)] if token else []),
        )

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, _ms(LOCK_SECONDS))

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, 0)

    async def _relock(self, lock: str, token: str, life: int) -> None:
        await self._call("lock", _eval(scripts.RELOCK, [lock], token, life))

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        await self._each_tag("hold", scripts.HOLD, tags, writer, _ms(HOLD_SECONDS))

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        await self._each_tag("release", scripts.RELEASE, tags, writer, int(changed))

    async def _each_tag(
        self, operation: str, script: str, tags: Sequence[str], *arguments: str | int
    ) -> None:
        try:
            await self._call(
                operation, *[_eval(script, self._tag_keys(tag), *arguments) for tag in tags]
            )
        finally:  # what this process writes its next read sees, before Redis pushes it
            for tag in tags:
                self._local.forget(self._tag_key("g", tag))

    async def clear(self) -> None:
        cursor, pattern = b"0", _escaped(self._name) + ":g:*"
        while True:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            ((cursor, keys),) = await self._call("clear", scan)
            if keys:
                await self._call("clear", ("UNLINK", *keys))
            if cursor == b"0":
                self._local.forget_all()
                return

    async def ping(self) -> None:
        await self._call("ping", ("PING",))

    async def _probe(self) -> None:
        try:
            await self._connection.execute([("PING",)])
        except Exception as error:
            raise CacheUnavailable(str(error)) from error

    async def aclose(self) -> None:
        await self._breaker.aclose()
        await self._connection.aclose()

    async def _connect(self) -> RedisPyConnection:
        connection: RedisPyConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _call(self, operation: str, *commands: Command) -> list[Any]:
        """The answers of Redis. Raises CacheUnavailable, at once while the breaker is open."""
        self._breaker.check()
        if not commands:
            return []
        try:
            answers = await self._connection.execute(commands)
        except Exception as error:
            self._breaker.failed(operation, error)
            raise CacheUnavailable(f"{operation}: {error!r}") from error
        for answer in answers:
            if isinstance(answer, ReplyError):
                self._breaker.failed(operation, answer, answered=True)
                raise CacheUnavailable(f"{operation}: {answer!r}")
        self._breaker.succeeded()
        return answers

    def _entry_key(self, key: str) -> str:
        return f"{self._name}:e:{key}"

    def _tag_keys(self, tag: str) -> tuple[str, str]:
        return self._tag_key("g", tag), self._tag_key("h", tag)

    def _lock_key(self, key: str, tags: Sequence[str]) -> str:
        # Beside the keys of the first tag: a script touches the keys of one tag only.
        return f"{self._tag_key('l', tags[0])}:{key}"

    def _tag_key(self, kind: str, tag: str) -> str:
        # In braces: Redis Cluster keeps the keys of one tag together.
        return f"{self._name}:{kind}:" + "{" + tag + "}"


def _eval(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    return ("EVAL", script, len(keys), *keys, *arguments)


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", name)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
