"""Migrations describe the models, can be taken back, and may be started by several processes."""

import asyncio
import io
import os
import sys
import uuid

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from tests.services import SERVICE, Services, asyncpg_dsn, database

PROCESSES = 4


@pytest.fixture
def config(empty_database_url: str) -> Config:
    config = Config(SERVICE / "alembic.ini")
    config.attributes["database_url"] = empty_database_url
    return config


async def alembic(config: Config, *arguments: str) -> None:
    # In a thread of its own: env.py runs an event loop.
    await asyncio.to_thread(getattr(command, arguments[0]), config, *arguments[1:])


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    return {row["tablename"] for row in rows}


async def test_up_down_and_up_again(config: Config, empty_database_url: str) -> None:
    await alembic(config, "upgrade", "head")
    created = await tables(empty_database_url)
    await alembic(config, "downgrade", "base")
    assert await tables(empty_database_url) == {"alembic_version"}
    await alembic(config, "upgrade", "head")
    assert await tables(empty_database_url) == created


async def test_models_have_no_change_without_a_migration(config: Config) -> None:
    await alembic(config, "upgrade", "head")
    await alembic(config, "check")  # raises when there is one


async def test_the_sql_can_be_printed(config: Config) -> None:
    config.output_buffer = io.StringIO()
    await asyncio.to_thread(command.upgrade, config, "head", sql=True)
    assert config.output_buffer.getvalue().strip().endswith("COMMIT;")


async def run_alembic(database_url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "upgrade", "head"),
        cwd=SERVICE,
        env=os.environ | {"DATABASE_URL": database_url},
        stderr=asyncio.subprocess.PIPE,
    )
    _, log = await process.communicate()
    return process.returncode, log.decode()


async def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    runs = await asyncio.gather(*(run_alembic(empty_database_url) for _ in range(PROCESSES)))
    assert [status for status, _ in runs] == [0] * PROCESSES, runs
    assert sum("Running upgrade" in log for _, log in runs) <= 1


async def test_a_url_may_have_any_character(services: Services) -> None:
    name = f"test 100%40 {uuid.uuid4().hex[:12]}"
    async with database(services, "template1", name) as url:
        config = Config(SERVICE / "alembic.ini")
        config.attributes["database_url"] = url
        await alembic(config, "upgrade", "head")
        assert "alembic_version" in await tables(url)
