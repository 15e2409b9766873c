"""The servers that tests run against: real ones, started once for all workers of a run.

TEST_SERVICES says where they come from:
  docker     containers of the images that compose.yaml names
  embedded   processes from PyPI wheels (see devtools/)
  external   what TEST_DATABASE_URL and TEST_CACHE_URL name; tests create and drop databases of
             their own there, and empty the Redis databases 0, 1, ... (one for each worker)
  auto       docker if it answers, else embedded; in CI no answer is an error, so that a green run
             has always used the servers of production
"""

import gc
import os
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis
import yaml
from docker.errors import APIError, ImageNotFound
from sqlalchemy.engine import make_url
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import PingWaitStrategy, RedisContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient

from devtools import postgres_server, redis_server
from devtools.servers import free_port

Kind = Literal["docker", "embedded", "external"]

SERVICE = Path(__file__).parents[1]
STOP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Services:
    kind: Kind
    database_url: str
    cache_url: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class StoppableRedis(Protocol):
    @property
    def url(self) -> str: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


def choose_kind() -> Kind:
    wanted = os.environ.get("TEST_SERVICES") or "auto"
    if wanted in get_args(Kind):
        return cast(Kind, wanted)
    if wanted != "auto":
        raise pytest.UsageError(
            f"TEST_SERVICES is {wanted!r}: it can be auto, {', '.join(get_args(Kind))}"
        )
    if _docker_answers():
        return "docker"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        raise pytest.UsageError(
            "Docker does not answer, and in CI nothing else is used unless you say so: set"
            " TEST_SERVICES=embedded, or external with TEST_DATABASE_URL and TEST_CACHE_URL"
        )
    return "embedded"


@contextmanager
def running_services(kind: Kind) -> Iterator[Services]:
    with ExitStack() as stack:
        if kind == "docker":
            database_url, cache_url = _start_containers(stack)
        elif kind == "embedded":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="test-services-")))
            database_url = stack.enter_context(
                postgres_server(folder / "postgres", durable=False)
            ).url
            cache_url = stack.enter_context(redis_server(folder / "redis")).url
        else:
            database_url, cache_url = _variable("TEST_DATABASE_URL"), _variable("TEST_CACHE_URL")
        yield Services(kind, database_url, cache_url)


@contextmanager
def stoppable_redis(kind: Kind) -> Iterator[StoppableRedis]:
    """A Redis of one's own, which may be stopped and started again on the same port."""
    if kind == "external":
        pytest.skip("this test stops Redis, and TEST_SERVICES=external is not ours to stop")
    if kind == "docker":
        # A port that Docker chose would be another one after the restart.
        with RedisContainer(image("redis")).with_bind_ports(6379, free_port()) as container:
            yield _DockerRedis(container)
    else:
        with redis_server() as server:
            yield server


def address_for_peers(server: StoppableRedis) -> tuple[str, int]:
    """Where another server of the same kind reaches this one."""
    if isinstance(server, _DockerRedis):
        return server.bridge_address
    url = urlsplit(server.url)
    assert url.hostname and url.port
    return url.hostname, url.port


def image(service: str) -> str:
    """The image that compose.yaml runs, so that tests and production have the same one."""
    compose: dict[str, Any] = yaml.safe_load((SERVICE / "compose.yaml").read_text("utf-8"))
    return str(compose["services"][service]["image"])


@asynccontextmanager
async def database(services: Services, template: str, name: str = "") -> AsyncIterator[str]:
    """The URL of a copy of `template`, which is dropped at the end."""
    name = name or f"test_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(asyncpg_dsn(services.database_url))
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield other_database(services.database_url, name)
        finally:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


async def describe(services: Services) -> str:
    connection = await asyncpg.connect(asyncpg_dsn(services.database_url))
    postgres_version = str(await connection.fetchval("SHOW server_version")).split()[0]
    await connection.close()
    with redis.Redis.from_url(services.cache_url) as client:
        info = cast(dict[str, str], client.info("server"))
    # Valkey also says which version of Redis it is compatible with.
    cache = (
        f"Valkey {info['valkey_version']}"
        if "valkey_version" in info
        else f"Redis {info['redis_version']}"
    )
    return f"{services.kind}: PostgreSQL {postgres_version}, {cache}"


def asyncpg_dsn(database_url: str) -> str:
    """The URL as asyncpg itself reads it, without SQLAlchemy's +asyncpg."""
    url = make_url(database_url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def other_database(database_url: str, name: str) -> str:
    return make_url(database_url).set(database=name).render_as_string(hide_password=False)


class _DockerRedis:
    def __init__(self, container: RedisContainer) -> None:
        self._container = container
        self.url = _redis_url(container)

    @property
    def bridge_address(self) -> tuple[str, int]:
        container_id = str(self._container.get_wrapped_container().id)
        return DockerClient().bridge_ip(container_id), self._container.port

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=STOP_SECONDS)

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        PingWaitStrategy().wait_until_ready(self._container)


def _start_containers(stack: ExitStack) -> tuple[str, str]:
    _do_without_ryuk_where_it_cannot_be_had()
    postgres = PostgresContainer(
        image("postgres"), username="app", password="app", dbname="app", driver="asyncpg"
    )
    # The data of a test need not survive anything.
    postgres.with_tmpfs_mount("/var/lib/postgresql/data")
    postgres.with_command("-c fsync=off -c full_page_writes=off -c max_connections=300")
    stack.enter_context(postgres)
    cache = stack.enter_context(RedisContainer(image("redis")))
    return postgres.get_connection_url(), _redis_url(cache)


def _redis_url(container: RedisContainer) -> str:
    host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
    return f"redis://{host}:{port}/0"


def _do_without_ryuk_where_it_cannot_be_had() -> None:
    """Ryuk removes what a killed run leaves behind. Behind a closed network tests go on without."""
    if testcontainers_config.ryuk_disabled:
        return
    client = DockerClient().client
    try:
        client.images.get(testcontainers_config.ryuk_image)
    except ImageNotFound:
        try:
            client.images.pull(testcontainers_config.ryuk_image)
        except APIError:
            testcontainers_config.ryuk_disabled = True
            # The workers of xdist start containers too.
            os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    finally:
        client.close()


def _docker_answers() -> bool:
    try:
        client = DockerClient().client
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # not installed, not running, not allowed: it does not answer
        pass
    # The library leaves the socket that it tried: collected later, it would fail some test.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    return False


def _variable(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise pytest.UsageError(f"TEST_SERVICES=external needs {name}")
    return value
