"""The cache in Redis or Valkey: `redis://`, `rediss://`.

A call is bounded by a short timeout and is not repeated: with redis-py as it is one request can
wait a minute for a silent server. Lookups are in lookups.py.
"""

import secrets
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Connection as RedisPyConnection
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache.backends.base import (
    GENERATION_SECONDS,
    HOLD_SECONDS,
    LOCK_SECONDS,
    REQUEST_BUDGET_SECONDS,
    Begun,
    Found,
)
from app.cache.backends.redis import scripts
from app.cache.backends.redis.breaker import Breaker
from app.cache.backends.redis.client import Client
from app.cache.backends.redis.connection import Connection
from app.cache.backends.redis.local import LocalTier
from app.cache.backends.redis.lookups import Reader
from app.cache.backends.redis.resp import ProtocolError
from app.cache.backends.redis.scripts import Command
from app.cache.backends.redis.server import Server
from app.cache.entry import Entry
from app.cache.events import Recorder

# The breaker holds and releases this tag. No entry depends on it.
PROBE = "probe of the breaker"


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
        self._server = Server(on_change=self._local.forget_all)
        self._connection = Connection(
            self._connect, self._local, self._server.HELLO, self._server.welcome, timeout
        )
        self._client = Client(self._connection, self._breaker)
        self._reader = Reader(
            self._connection, self._client, self._server, self._local, recorder,
            name=name,
        )  # fmt: skip

    @property
    def warnings(self) -> Sequence[str]:
        return self._server.warnings

    def read(self, key: str, tags: Sequence[str], local: float = 0) -> Awaitable[Found]:
        self._breaker.check()
        return self._reader.read(key, tuple(tags), local)

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        if not self._connection.is_open:
            await self.ping()  # whose incarnation the generations begin with is known after that
        lock, lock_life = self._lock_key(key, tags), _ms(LOCK_SECONDS)
        commands: list[Command] = []
        for number, tag in enumerate(tags):
            keys = [*self._tag_keys(tag), *([lock] if number == 0 else [])]
            generation = self._server.new_generation()
            life = _ms(GENERATION_SECONDS)
            commands.append(scripts.BEGIN.call(keys, generation, life, token, lock_life))
        commands.append(("MGET", self._entry_key(key)))  # unlike GET, no error for another type
        return await self._client.call("begin", commands, partial(self._begun, tags))

    def _begun(self, tags: Sequence[str], answers: list[Any]) -> Begun:
        *begun, (raw,) = answers
        entry = Entry.decode(raw) if raw is not None else None
        generations = dict(zip(tags, [generation for generation, _ in begun], strict=True))
        return Begun(self._server.complete(generations), bool(begun[0][1]), entry)

    async def store(
        self, key: str, tags: Sequence[str], entry: Entry, seconds: float, token: str = ""
    ) -> None:
        life = _ms(seconds)
        commands = [
            ("SET", self._entry_key(key), entry.encode(), "PX", life),
            *[scripts.KEEP.call([self._tag_key("g", tag)], life) for tag in entry.generations],
            *([scripts.RELOCK.call([self._lock_key(key, tags)], token, 0)] if token else []),
        ]
        await self._client.call("store", commands, list)

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, _ms(LOCK_SECONDS))

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        await self._relock(self._lock_key(key, tags), token, 0)

    async def _relock(self, lock: str, token: str, life: int) -> None:
        await self._client.call("lock", [scripts.RELOCK.call([lock], token, life)], list)

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        await self._tell("hold", self._holds(tags, writer), tags)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        await self._tell("release", self._releases(tags, writer, changed=changed), tags)

    def _holds(self, tags: Sequence[str], writer: str) -> list[Command]:
        life = _ms(HOLD_SECONDS)
        return [scripts.HOLD.call(self._tag_keys(tag), writer, life) for tag in tags]

    def _releases(self, tags: Sequence[str], writer: str, *, changed: bool) -> list[Command]:
        return [scripts.RELEASE.call(self._tag_keys(tag), writer, int(changed)) for tag in tags]

    async def _tell(self, operation: str, commands: list[Command], tags: Sequence[str]) -> None:
        if not commands:
            return
        try:
            await self._client.call(operation, commands, _done)
        finally:  # what this process writes its next read sees, before Redis pushes it
            for tag in tags:
                self._local.forget(self._tag_key("g", tag))

    async def ping(self) -> None:
        await self._client.call("ping", [("PING",)], list)

    async def _probe(self) -> None:
        """All that is refused by a server that can be read and not be told."""
        tag, writer = [PROBE], secrets.token_hex(8)
        commands = [
            *self._holds(tag, writer),
            *self._releases(tag, writer, changed=True),
            ("MGET", self._tag_key("g", PROBE)),
        ]
        await self._client.try_call("probe", commands, lambda answers: _done(answers[:2]))

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


def _done(answers: list[Any]) -> None:
    if any(answer != 1 for answer in answers):
        raise ProtocolError(f"a script was answered with {answers!r:.80}")


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
