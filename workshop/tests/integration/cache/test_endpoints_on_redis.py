"""What clients see of a cached endpoint, once more: over the Redis or Valkey server of this run."""

import pytest

from app.cache import Cache, RedisBackend
from app.cache.events import Counters
from tests.unit.cache.test_endpoints import *  # noqa: F403 - the same tests, over another backend


@pytest.fixture  # type: ignore[no-redef]
def memory(cache_url: str) -> Cache:
    backend = RedisBackend(cache_url, name="test", recorder=Counters(), timeout=1)
    return Cache(backend, name="test")
