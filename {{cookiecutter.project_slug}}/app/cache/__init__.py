"""A cache for FastAPI and PostgreSQL that a write makes true again. Start with README.md here."""

from app.cache.backends.base import CacheUnavailable
from app.cache.backends.memory import InMemoryBackend
from app.cache.backends.redis.backend import RedisBackend
from app.cache.decorator import CachedFunction, cache
from app.cache.http.cache import Cache
from app.cache.http.middleware import CacheMiddleware
from app.cache.http.safety import shared_dependency
from app.cache.opening import open_cache
from app.cache.policy import Policy, PolicyError, UntoldWrite
from app.cache.sql.sessions import invalidate

__all__ = [
    "Cache",
    "CacheMiddleware",
    "CacheUnavailable",
    "CachedFunction",
    "InMemoryBackend",
    "Policy",
    "PolicyError",
    "RedisBackend",
    "UntoldWrite",
    "cache",
    "invalidate",
    "open_cache",
    "shared_dependency",
]
