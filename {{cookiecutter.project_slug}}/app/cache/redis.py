"""The cache in Redis or Valkey: `redis://`, `rediss://`.

Each call is bounded by a short timeout of our own and is not repeated: with redis-py as it is
one request can wait a minute for a silent server. A script touches the keys of one tag only.
Lookups are in reader.py.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

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
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.metrics import Recorder
from app.cache.reader import Reader

T = TypeVar("T")

MAX_CONNECTIONS = 64

# KEYS: generation, holders and, for the first tag of an entry, its lock. ARGV: new generation, its
# life in ms, lock token, life of the lock in ms. Gives the generation, and 1 if the lock was taken.
# The server's clock alone decides which holders are alive. A lock names the generation it was taken
# under: one that is left over from before an invalidation holds nobody up.
_BEGIN = """
local generation = redis.call('GET', KEYS[1])
if not generation then
    local now = redis.call('TIME')
    now = now[1] * 1000 + math.floor(now[2] / 1000)
    if redis.call('ZCOUNT', KEYS[2], now, '+inf') > 0 then return {false, 0} end
    generation = ARGV[1]
    redis.call('SET', KEYS[1], generation, 'PX', ARGV[2])
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if not KEYS[3] then return {generation, 0} end
local lock = redis.call('GET', KEYS[3])
if lock and lock ~= generation .. ARGV[3] and string.sub(lock, 1, #generation) == generation then
    return {generation, 0}
end
redis.call('SET', KEYS[3], generation .. ARGV[3], 'PX', ARGV[4])
return {generation, 1}
"""
# KEYS: generation, holders. ARGV: writer, life of the hold in ms.
_HOLD = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
redis.call('DEL', KEYS[1])
"""
# KEYS: generation, holders. ARGV: writer, '1' when something was committed.
_RELEASE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[2] == '1' then redis.call('DEL', KEYS[1]) end
"""
# KEYS: generation. ARGV: life in ms that it needs. It gets twice that, so that it is seldom
# touched: all local tiers are told of it.
_KEEP = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
end
"""
# KEYS: lock. ARGV: token, life in ms; a life of 0 gives the lock up.
_RELOCK = """
local lock = redis.call('GET', KEYS[1])
if not lock or string.sub(lock, -#ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


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
        self._client: Redis = Redis.from_url(
            url,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # every call has `timeout` around it, which costs less
            socket_connect_timeout=timeout,
            max_connections=MAX_CONNECTIONS,
            client_name=f"{name}-cache",
            # A connection is made in two commands instead of five.
            protocol=2,
            driver_info=None,
        )
        self._name, self._timeout = name, timeout
        self._breaker = Breaker(self._probe, recorder)
        self._reader = Reader(
            self._connect, self._breaker, recorder, tracked=f"{name}:g:", timeout=timeout
        )

    def read(self, key: str, tags: Sequence[str], local: float = 0) -> Awaitable[Found]:
        self._breaker.check()
        return self._reader.read(self._names(key, tuple(tags)), local)

    @lru_cache(maxsize=4096)  # noqa: B019 - a backend lives as long as the process
    def _names(self, key: str, tags: Sequence[str]) -> tuple[str, ...]:
        return (self._entry_key(key), *[self._tag_key("g", tag) for tag in tags])

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        lock, life = self._lock_key(key, tags), _ms(GENERATION_SECONDS)

        def operation() -> Awaitable[list[Any]]:
            pipeline = self._client.pipeline(transaction=False)
            if not tags:
                pipeline.set(lock, token, nx=True, px=_ms(LOCK_SECONDS))
            for number, tag in enumerate(tags):
                keys = [*self._tag_keys(tag), *([lock] if number == 0 else [])]
                generation = secrets.token_bytes(GENERATION_BYTES)
                pipeline.eval(_BEGIN, len(keys), *keys, generation, life, token, _ms(LOCK_SECONDS))
            pipeline.mget(self._entry_key(key))  # unlike GET, no error for another type
            return pipeline.execute()

        *answers, (raw,) = await self._call("begin", operation)
        entry = Entry.decode(raw) if raw is not None else None
        if not tags:
            return Begun(b"", bool(answers[0]), entry)
        generations = [generation for generation, _ in answers]
        joined = None if None in generations else b"".join(generations)
        return Begun(joined, bool(answers[0][1]), entry)

    async def store(self, key: str, tags: Sequence[str], entry: Entry, seconds: float) -> None:
        def operation() -> Awaitable[list[Any]]:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(self._entry_key(key), entry.encode(), px=_ms(seconds))
            for tag in tags:
                pipeline.eval(_KEEP, 1, self._tag_key("g", tag), _ms(seconds))
            return pipeline.execute()

        await self._call("store", operation)

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, _ms(LOCK_SECONDS))

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, 0)

    async def _relock(self, lock: str, token: str, life: int) -> None:
        await self._call("lock", lambda: self._client.eval(_RELOCK, 1, lock, token, str(life)))

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        await self._each_tag("hold", _HOLD, tags, writer, _ms(HOLD_SECONDS))

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        await self._each_tag("release", _RELEASE, tags, writer, int(changed))

    async def _each_tag(
        self, operation: str, script: str, tags: Sequence[str], *arguments: Any
    ) -> None:
        def call() -> Awaitable[list[Any]]:
            pipeline = self._client.pipeline(transaction=False)
            for tag in tags:
                pipeline.eval(script, 2, *self._tag_keys(tag), *arguments)
            return pipeline.execute()

        if not tags:
            return
        try:
            await self._call(operation, call)
        finally:  # what this process writes its next read sees, before Redis pushes it
            for tag in tags:
                self._reader.local.forget(self._tag_key("g", tag))

    async def clear(self) -> None:
        cursor, pattern = 0, _escaped(self._name) + ":g:*"
        while True:
            cursor, keys = await self._call("clear", partial(self._scan, cursor, pattern))
            if keys:
                await self._call("clear", partial(self._client.unlink, *keys))
            if cursor == 0:
                return

    def _scan(self, cursor: int, pattern: str) -> Awaitable[tuple[int, list[Any]]]:
        return self._client.scan(cursor, match=pattern, count=1000)

    async def ping(self) -> None:
        await self._call("ping", self._client.ping)

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.ping()
        except Exception as error:
            raise CacheUnavailable(str(error)) from error

    async def aclose(self) -> None:
        await self._breaker.aclose()
        await self._reader.aclose()
        await self._client.aclose()

    async def _connect(self) -> Connection:
        pool = self._client.connection_pool
        connection: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _call(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of Redis. Raises CacheUnavailable, at once while the breaker is open."""
        self._breaker.check()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except Exception as error:  # on a broken connection the client raises more than its own
            self._breaker.failed(operation, error, answered=isinstance(error, ResponseError))
            raise CacheUnavailable(f"{operation}: {error!r}") from error
        self._breaker.succeeded()
        return answer

    def _entry_key(self, key: str) -> str:
        return f"{self._name}:e:{key}"

    def _tag_keys(self, tag: str) -> tuple[str, str]:
        return self._tag_key("g", tag), self._tag_key("h", tag)

    def _lock_key(self, key: str, tags: Sequence[str]) -> str:
        # Beside the keys of the first tag: a script touches the keys of one tag only.
        return f"{self._tag_key('l', tags[0])}:{key}" if tags else f"{self._name}:l:{key}"

    def _tag_key(self, kind: str, tag: str) -> str:
        # In braces: Redis Cluster keeps the keys of one tag together.
        return f"{self._name}:{kind}:" + "{" + tag + "}"


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", name)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
