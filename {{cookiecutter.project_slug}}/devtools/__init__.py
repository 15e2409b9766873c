"""Real PostgreSQL and Redis servers for development and tests, without Docker.

The servers come from packages of the development dependencies (a Redis on PATH is preferred) and
end with the process that started them. For Linux and macOS; not part of the service's image.
"""

from devtools.postgres import PostgresServer, postgres_server
from devtools.processes import DevtoolsError
from devtools.redis import RedisServer, redis_server

__all__ = [
    "DevtoolsError",
    "PostgresServer",
    "RedisServer",
    "postgres_server",
    "redis_server",
]
