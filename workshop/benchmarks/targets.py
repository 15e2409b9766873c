"""Servers to measure, and what they need: PostgreSQL, Redis, uvicorn, and a core for each side.

Everything comes from `devtools`, keeps its data in a temporary folder, and ends with this process.
"""

import asyncio
import http.client
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from app.settings import DEVELOPMENT_SECRET, Settings
from devtools import Server, postgres_server, redis_server
from devtools.servers import HOST, free_port
from sqlalchemy.engine import make_url

from benchmarks.traffic import SERVICE, Request

ANSWER_SECONDS = 30.0
# A second database, so that writes change nothing for those who read.
WRITES_DATABASE = "writes"
SERVICE_NAME = "service"


@dataclass(frozen=True, slots=True)
class Target:
    """An ASGI application behind uvicorn."""

    name: str
    application: str
    workers: int = 1
    alone: bool = True
    """Whether it has a core to itself."""
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    python: str = sys.executable
    folder: Path = SERVICE
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Cores:
    """Which side runs on which processors; none where that cannot be chosen."""

    server: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()

    @classmethod
    def available(cls) -> "Cores":
        if sys.platform != "linux":
            return cls()
        first, *more = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(more[:1])) if more else cls()

    @property
    def description(self) -> str:
        if not self.server:
            return "not pinned to cores: the server and the load generator disturb each other"
        return (
            f"the server alone on core {min(self.server)}; load generator, Redis and PostgreSQL"
            f" together on core {min(self.others)}; two workers on both cores"
        )

    def use(self, cores: frozenset[int]) -> None:
        """For this process, and for all that it starts from now on."""
        if cores and sys.platform == "linux":
            os.sched_setaffinity(0, cores)


@dataclass(frozen=True, slots=True)
class Servers:
    """PostgreSQL and Redis, for one run of the benchmark."""

    postgres: Server
    redis: Server
    folder: Path
    cores: Cores

    @property
    def bodies(self) -> Path:
        """What the bare application sends: one file for each path."""
        return self.folder / "bodies"

    def environment(self, target: Target, number: int) -> dict[str, str]:
        """Nothing of the shell's settings, and a Redis database that no other target uses."""
        own = {name: v for name, v in os.environ.items() if name.lower() not in _SETTINGS}
        url = make_url(self.postgres.url)
        if target.writes:
            url = url.set(database=WRITES_DATABASE)
        return own | {
            "ENVIRONMENT": "local",
            "SERVICE_NAME": SERVICE_NAME,
            "LOG_LEVEL": "WARNING",
            "API_TOKEN": DEVELOPMENT_SECRET,
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "CACHE_URL": make_url(self.redis.url).set(database=str(number)).render_as_string(),
            "BODIES": str(self.bodies),
            **target.environment,
        }

    @contextmanager
    def serving(self, target: Target, number: int) -> Iterator[Running]:
        """The target, once it takes connections; `number` is that of its Redis database."""
        port, log = free_port(), self.folder / f"{target.name.replace('/', '-')}.log"
        arguments = [*UVICORN, "--port", str(port), "--workers", str(target.workers)]
        command = [target.python, *arguments, target.application]
        place = {"cwd": target.folder, "env": self.environment(target, number)}
        server = Server(f"http://{HOST}:{port}", command, log, lambda _: _listens(port), place)
        self.cores.use(self.cores.server if target.alone else self.cores.server | self.cores.others)
        try:
            server.start()
        finally:
            self.cores.use(self.cores.others)
        try:
            yield Running(port, server.pid)
        finally:
            server.stop()


UVICORN = (
    *("-m", "uvicorn", "--host", HOST, "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--log-level", "warning"),
)
_SETTINGS = {*Settings.model_fields, "web_concurrency", "prometheus_multiproc_dir"}


@contextmanager
def data_servers(folder: Path, cores: Cores) -> Iterator[Servers]:
    """PostgreSQL with all migrations applied, and an empty Redis."""
    cores.use(cores.others)
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server(folder / "postgres", durable=False))
        redis = stack.enter_context(redis_server(folder / "redis"))
        config = Config(SERVICE / "alembic.ini")
        config.attributes["database_url"] = postgres.url
        command.upgrade(config, "head")
        asyncio.run(_execute(postgres.url, f"CREATE DATABASE {WRITES_DATABASE} TEMPLATE app"))
        servers = Servers(postgres, redis, folder, cores)
        servers.bodies.mkdir()
        yield servers


def ask(port: int, request: Request) -> Answer:
    """One answer, on a connection of its own. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        body = request.body.encode() or None
        connection.request(request.method, request.path, body, dict(request.headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        ask(port, Request("/health/live"))
    except (OSError, http.client.HTTPException):
        return False
    return True


def asyncpg_dsn(database_url: str) -> str:
    """The URL as asyncpg itself reads it, without SQLAlchemy's +asyncpg."""
    url = make_url(database_url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


async def _execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
