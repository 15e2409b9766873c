"""Real PostgreSQL and Redis servers for development and tests, without Docker.

The programs come from packages of the development dependencies, and end with the process that
started them. For Linux and macOS; not part of the service's image.
"""

from devtools.postgres import postgres_server
from devtools.redis import redis_server
from devtools.servers import DevtoolsError, Server

__all__ = ["DevtoolsError", "Server", "postgres_server", "redis_server"]
