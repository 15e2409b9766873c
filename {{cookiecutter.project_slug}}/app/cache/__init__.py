"""A cache for FastAPI and PostgreSQL that a write makes true again. Start with README.md here."""

from app.cache.backend import CacheUnavailable
from app.cache.core import Cache, open_cache
from app.cache.function import CachedFunction, cache
from app.cache.memory import InMemoryBackend
from app.cache.middleware import CacheMiddleware
from app.cache.policy import Policy, PolicyError
from app.cache.redis import RedisBackend
from app.cache.safety import shared_dependency

__all__ = [
    "Cache",
    "CacheMiddleware",
    "CacheUnavailable",
    "CachedFunction",
    "InMemoryBackend",
    "Policy",
    "PolicyError",
    "RedisBackend",
    "cache",
    "open_cache",
    "shared_dependency",
]
