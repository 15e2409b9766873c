"""The cache as an application holds it: the engine, and the routes that it answers."""

import time
from typing import Any, get_args

from fastapi import FastAPI

from app.cache.backends.base import Backend
from app.cache.engine import CacheEngine
from app.cache.http.routes import RouteTable
from app.cache.reads import Unclear
from app.cache.store import Computed

# After a result that nobody may share, requests do not queue behind each other for so long.
HIT_FOR_MISS_SECONDS = 1.0
MAX_HITS_FOR_MISS = 10_000


class Cache(CacheEngine):
    """`name` is that of the service in `Cache-Status`."""

    def __init__(
        self,
        backend: Backend,
        *,
        name: str = "cache",
        client_may_bypass: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backend, name=name, **options)
        self.slug, self.client_may_bypass = name.encode(), client_may_bypass
        self.tables: dict[FastAPI, RouteTable] = {}
        self._hits_for_miss: dict[str, tuple[float, str]] = {}

    def bind(self, app: FastAPI) -> RouteTable:
        """Analyses the routes of `app`. Raises PolicyError for one that cannot be cached safely."""
        table = self.tables.get(app)
        if table is None:
            table = self.tables[app] = RouteTable(app, self.coverage)
            self.learned |= {route.learned for route in table.cached}
            for mounted in table.mounted:
                self.bind(mounted)
        return table

    def why_not_shared(self, key: str) -> str | None:
        """Why this request need not wait for others, as the last result was nobody else's."""
        until, why = self._hits_for_miss.get(key, (0.0, ""))
        return why if until > time.monotonic() else None

    def remember(self, key: str, computed: Computed) -> None:
        """Notes a result that nobody may share, or that is never stored."""
        why = computed.why_not_stored if computed.shared else "hit-for-miss"
        if computed.shared and why not in get_args(Unclear):
            return
        if len(self._hits_for_miss) >= MAX_HITS_FOR_MISS:
            self._hits_for_miss.clear()
        self._hits_for_miss[key] = (time.monotonic() + HIT_FOR_MISS_SECONDS, why)
