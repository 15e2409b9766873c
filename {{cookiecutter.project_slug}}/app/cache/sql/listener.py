"""Writes that bypass the service: triggers NOTIFY the tags of a table, a listener invalidates them.

One connection of its own to PostgreSQL, outside the pool, for as long as the service runs. It never
fails: while there is no connection it looks for one, and as nobody heard what was written
meanwhile, each new connection begins with the invalidation of everything.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy.engine import make_url

from app.cache.engine import CacheEngine
from app.cache.policy import EVERYTHING, MAX_TAG_CHARS, table_tag
from app.cache.sql.statements import Change
from app.cache.sql.tables import Tables

CHANNEL = "cache_tags"
TRIGGER = "notify_cache_tags"
TABLE = table_tag("")
# After this long without news the connection is asked, and has as long again to answer.
HEARTBEAT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
# Of these parameters of a URL SQLAlchemy makes use itself.
NOT_FOR_ASYNCPG = ("prepared_statement_cache_size", "prepared_statement_name_func")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

log = logging.getLogger("app.cache")


@asynccontextmanager
async def listening(cache: CacheEngine, database_url: str, tables: Tables) -> AsyncIterator[None]:
    """In the block, what is notified is invalidated. PostgreSQL need not answer yet."""
    task = asyncio.create_task(_Listener(cache, database_url, tables).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Listener:
    def __init__(self, cache: CacheEngine, database_url: str, tables: Tables) -> None:
        self._cache, self._url, self._tables = cache, database_url, tables
        self._default_schema = ""
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._looked_for_triggers = False

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # whatever it is, the service goes on
                if self._retry_seconds == FIRST_RETRY_SECONDS:  # once, not at each try
                    log.warning("nobody listens for out-of-band writes, retrying: %r", error)
            await asyncio.sleep(self._retry_seconds * random.uniform(0.5, 1))
            self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(**self._connect_arguments())
        try:
            connection.add_termination_listener(self._wake)
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._look_for_triggers(connection)
                self._default_schema = await connection.fetchval("SELECT current_schema()")
                await connection.add_listener(CHANNEL, self._hear)
            await self._follow(connection)
        finally:
            connection.terminate()  # at once: a silent server would not take leave

    async def _look_for_triggers(self, connection: Connection) -> None:
        if not self._looked_for_triggers and not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = $1 AND tgenabled <> 'D')", TRIGGER
        ):
            log.warning(
                "CACHE_LISTEN is on, and no trigger named %s is in the database: writes that bypass"
                " the service are not heard. README.md says how to add them.",
                TRIGGER,
            )
        self._looked_for_triggers = True

    def _connect_arguments(self) -> dict[str, Any]:
        url = make_url(self._url)
        arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        for name in NOT_FOR_ASYNCPG:
            arguments.pop(name, None)
        return arguments | {
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "server_settings": {"application_name": f"{self._cache.name} cache listener"},
        }

    async def _follow(self, connection: Connection) -> None:
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._cache.recorder.count("listener", "connected")
        self._heard.add(EVERYTHING)  # only now: what is written from here on is heard
        try:
            while not connection.is_closed():
                await self._invalidate()
                await self._wait(connection)
            raise ConnectionError("PostgreSQL hung up")
        except Exception:
            self._cache.recorder.count("listener", "lost")
            raise

    async def _wait(self, connection: Connection) -> None:
        """Until there is news. Raises TimeoutError when the connection is dead without a word."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._news.wait()
        except TimeoutError:
            await connection.execute("SELECT 1", timeout=HEARTBEAT_SECONDS)

    async def _invalidate(self) -> None:
        self._news.clear()
        heard, self._heard = self._heard, set()
        if tags := {ended for tag in heard for ended in self._ended_by(tag)}:
            await self._cache.invalidate(*sorted(tags))
            self._cache.recorder.count("listener", "invalidated", len(tags))

    def _ended_by(self, tag: str) -> Set[str]:
        """For a table also the tags that cover it. Which rows have changed is not known."""
        if not tag.startswith(TABLE):
            return {tag}
        name = tag.removeprefix(TABLE)
        # Triggers send the schema. Models need not name the default one.
        tables = {name, name.removeprefix(f"{self._default_schema}.")}
        return self._tables.ended_by(frozenset(Change(table, "insert") for table in tables))

    def _hear(self, _connection: object, _pid: int, _channel: str, tag: object) -> None:
        # Whoever may connect to the database may notify anything.
        if isinstance(tag, str) and 0 < len(tag) <= MAX_TAG_CHARS and tag.isprintable():
            self._heard.add(tag)
            self._wake()
        else:
            log.warning("ignored a notification that is no tag: %.80r", tag)

    def _wake(self, *_: object) -> None:
        self._news.set()
