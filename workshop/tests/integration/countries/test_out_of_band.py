"""Writes that bypass the service, as with psql: with CACHE_LISTEN=true the next reads see them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.settings import Settings
from tests.clients import AUTHORIZED, Client, cache_status, serving, until_hit
from tests.services import SERVICE, Services, asyncpg_dsn

SECONDS = 1.0
RECONNECT_SECONDS = 10.0
RENAME = "UPDATE countries SET name = 'Aust' WHERE alpha_2 = 'AT'"
LISTENERS = """
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE '% cache listener'
"""

Connection = Any  # asyncpg.Connection, which is generic in its stubs alone


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    """With the optional migration applied, and the setting on."""
    config = Config(SERVICE / "alembic.ini")
    config.attributes["database_url"] = settings.database_url
    folders = [str(path.parent) for path in SERVICE.glob("migrations/*/*_0*.py")]
    config.set_main_option("version_locations", os.pathsep.join(sorted(set(folders))))
    await asyncio.to_thread(command.upgrade, config, "heads")
    return settings.model_copy(update={"cache_listen": True})


@pytest.fixture
async def psql(settings: Settings) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(asyncpg_dsn(settings.database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def client(settings: Settings, psql: Connection) -> AsyncIterator[Client]:
    async with serving(settings) as client:
        await until_listening(psql)
        yield client


async def until_listening(psql: Connection) -> None:
    async with asyncio.timeout(RECONNECT_SECONDS):
        while not await psql.fetchval(f"SELECT count(*) {LISTENERS} AND query LIKE 'LISTEN%'"):
            await asyncio.sleep(0.01)


async def until_reads(
    client: Client, url: str, field: str, value: object, seconds: float = SECONDS
) -> None:
    async with asyncio.timeout(seconds):
        while (await client.get(url)).json().get(field) != value:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def no_new_connections(services: Services, database_url: str) -> AsyncIterator[None]:
    admin = await asyncpg.connect(asyncpg_dsn(services.database_url))
    database = f'ALTER DATABASE "{make_url(database_url).database}" ALLOW_CONNECTIONS'
    await admin.execute(f"{database} false")
    try:
        yield
    finally:
        await admin.execute(f"{database} true")
        await admin.close()


@pytest.mark.parametrize(
    ("statement", "url", "field", "value"),
    [
        (RENAME, "/countries/AT", "name", "Aust"),
        ("DELETE FROM countries WHERE alpha_2 = 'AQ'", "/countries?limit=1", "total", 248),
        ("DELETE FROM countries WHERE alpha_2 = 'AT'", "/countries/AT", "status", 404),
        (
            "INSERT INTO countries (alpha_2, alpha_3, numeric, name)"
            " VALUES ('XN', 'XNA', '999', 'Narnia')",
            "/countries?limit=1",
            "total",
            250,
        ),
        ("TRUNCATE countries CASCADE", "/countries", "total", 0),
        ("TRUNCATE country_currencies", "/countries/AT", "currencies", []),
        ("DELETE FROM countries WHERE region = 'Asia'", "/regions", "total", 4),
        (
            "UPDATE currencies SET name = 'Yoyo' WHERE code = 'EUR'",
            "/currencies/EUR",
            "name",
            "Yoyo",
        ),
    ],
)
async def test_sql_is_seen_within_a_second(
    client: Client, psql: Connection, statement: str, url: str, field: str, value: object
) -> None:
    await until_hit(client, url)
    await psql.execute(statement)
    await until_reads(client, url, field, value)


async def test_one_listener_invalidates_for_all_services_on_its_redis(
    client: Client, settings: Settings, psql: Connection
) -> None:
    deaf = settings.model_copy(update={"cache_listen": False})
    async with serving(deaf) as other:
        await until_hit(client, "/countries/AT")
        await until_hit(other, "/countries/AT")
        await psql.execute(RENAME)
        await until_reads(other, "/countries/AT", "name", "Aust")
        await until_reads(client, "/countries/AT", "name", "Aust")


async def test_what_was_written_while_the_connection_was_lost_is_seen(
    client: Client, psql: Connection, services: Services, database_url: str
) -> None:
    await until_hit(client, "/countries/AT")
    async with no_new_connections(services, database_url):
        await psql.execute(f"SELECT pg_terminate_backend(pid, 5000) {LISTENERS}")
        await psql.execute(RENAME)  # nobody hears it
    await until_reads(client, "/countries/AT", "name", "Aust", RECONNECT_SECONDS)


async def test_what_is_rolled_back_leaves_the_cache_alone(client: Client, psql: Connection) -> None:
    await until_hit(client, "/countries/AT")
    await until_hit(client, "/currencies/EUR")
    transaction = psql.transaction()
    await transaction.start()
    await psql.execute(RENAME)
    await transaction.rollback()
    # Notifications come in the order of commits: when this one is there, the other would be.
    await psql.execute("UPDATE currencies SET name = 'Yoyo' WHERE code = 'EUR'")
    await until_reads(client, "/currencies/EUR", "name", "Yoyo")
    assert cache_status(await client.get("/countries/AT")) == "hit"


async def test_writes_through_the_service_are_seen_as_ever(client: Client) -> None:
    for name in ("Ostarrichi", "Austria", "Ostmark"):
        await until_hit(client, "/countries/AT")
        await client.patch("/countries/AT", json={"name": name}, headers=AUTHORIZED)
        assert (await client.get("/countries/AT")).json()["name"] == name
