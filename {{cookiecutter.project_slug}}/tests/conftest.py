"""Servers and isolation for all tests.

The servers are started once, by the process that was called, and shared with the workers of xdist.
Each test that asks for a database gets one of its own, copied from a migrated template (20 ms), and
an empty Redis database. Nothing is started for `pytest tests/unit`.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.settings import Settings
from tests.clients import Client, make_settings, serving
from tests.services import (
    SERVICE,
    Services,
    StoppableRedis,
    asyncpg_dsn,
    choose_kind,
    database,
    describe,
    other_database,
    running_services,
    stoppable_redis,
)

UNIT_TESTS = SERVICE / "tests" / "unit"
TEMPLATE_DATABASE = f"template_{uuid.uuid4().hex[:12]}"
REDIS_DATABASES = 16

shared = pytest.StashKey[dict[str, str]]()
started = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    # Importing the application turned its log on.
    logging.getLogger().setLevel(logging.WARNING)
    if hasattr(config, "workerinput"):
        config.stash[shared] = config.workerinput["services"]
    elif _needs_services(config):
        config.stash[started] = ExitStack()
        kind = choose_kind()
        services = config.stash[started].enter_context(running_services(kind))
        _migrate_template(services)
        config.stash[started].callback(_drop_template, services)
        config.stash[shared] = services.as_dict() | {"template": TEMPLATE_DATABASE}


def pytest_unconfigure(config: pytest.Config) -> None:
    if stack := config.stash.get(started, None):
        stack.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["services"] = node.config.stash.get(shared, {})


def pytest_report_header(config: pytest.Config) -> str:
    values = config.stash.get(shared, {})
    if not values:
        return "test services: none (unit tests only)"
    return f"test services: {asyncio.run(describe(_services(values)))}"


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services:
    return _services(pytestconfig.stash[shared])


@pytest.fixture
async def empty_database_url(services: Services) -> AsyncIterator[str]:
    async with database(services, "template1") as url:
        yield url


@pytest.fixture
async def database_url(services: Services, pytestconfig: pytest.Config) -> AsyncIterator[str]:
    """A database with all migrations applied, which nobody else uses."""
    async with database(services, pytestconfig.stash[shared]["template"]) as url:
        yield url


@pytest.fixture
async def cache_url(services: Services, worker_number: int) -> str:
    """A Redis database with nothing in it, which no other worker uses."""
    url = make_url(services.cache_url).set(database=str(worker_number % REDIS_DATABASES))
    text = url.render_as_string(hide_password=False)
    async with redis.asyncio.Redis.from_url(text) as client:
        await client.flushdb()
    return text


@pytest.fixture(scope="session")
def worker_number(request: pytest.FixtureRequest) -> int:
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    return int(re.sub(r"\D", "", worker))


@pytest.fixture
def settings(database_url: str, cache_url: str) -> Settings:
    return make_settings(database_url=database_url, cache_url=cache_url)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with serving(settings) as client:
        yield client


@pytest.fixture
def own_redis(services: Services) -> Iterator[StoppableRedis]:
    with stoppable_redis(services.kind) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the shell nor a `.env` of the developer decides how tests go."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


def _needs_services(config: pytest.Config) -> bool:
    if config.option.help or config.option.collectonly:
        return False
    paths = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
    return not all(path.resolve().is_relative_to(UNIT_TESTS) for path in paths)


def _migrate_template(services: Services) -> None:
    asyncio.run(_execute(services, f'CREATE DATABASE "{TEMPLATE_DATABASE}"'))
    config = Config(SERVICE / "alembic.ini")
    config.attributes["database_url"] = other_database(services.database_url, TEMPLATE_DATABASE)
    command.upgrade(config, "head")


def _drop_template(services: Services) -> None:
    asyncio.run(_execute(services, f'DROP DATABASE "{TEMPLATE_DATABASE}" WITH (FORCE)'))


async def _execute(services: Services, statement: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(services.database_url))
    await connection.execute(statement)
    await connection.close()


def _services(values: dict[str, str]) -> Services:
    return Services(**{name: values[name] for name in Services.__slots__})  # type: ignore[arg-type]
