"""P1 and P2 over real PostgreSQL and Redis: readers and writers stopped where it hurts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.cache.writes import Writes
from app.countries import repository
from app.settings import Settings
from tests.clients import AUTHORIZED, Client, serving


class Gate:
    """Stops whoever passes, once it is closed, until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        self.reached.set()
        await self._open.wait()


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Client]:
    """A second application on the same PostgreSQL and Redis: another process, as it were."""
    async with serving(settings) as client:
        yield client


@pytest.fixture
def after_query(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate that readers of a country pass when they have read it, and have not answered yet."""
    gate, get = Gate(), repository.get

    async def stopped(*args: Any) -> Any:
        country = await get(*args)
        await gate.pass_through()
        return country

    monkeypatch.setattr(repository, "get", stopped)
    return gate


async def rename(client: Client, name: str) -> None:
    response = await client.patch("/countries/AT", json={"name": name}, headers=AUTHORIZED)
    assert response.status_code == 200


async def name(client: Client) -> str:
    return str((await client.get("/countries/AT")).json()["name"])


async def test_a_reader_that_stores_after_a_write_stores_nothing_that_is_served(
    client: Client, other: Client, after_query: Gate
) -> None:
    after_query.close()
    slow = asyncio.create_task(name(client))
    await after_query.reached.wait()
    await rename(other, "Aust")
    after_query.open()
    assert await slow == "Austria"
    assert await name(client) == await name(other) == "Aust"


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_read_after_a_write_does_not_get_what_an_earlier_read_is_still_computing(
    client: Client, other: Client, after_query: Gate, same_process: bool
) -> None:
    after_query.close()
    slow = asyncio.create_task(name(client))
    await after_query.reached.wait()
    await rename(other, "Aust")
    after_query.reached.clear()
    late = asyncio.create_task(name(client if same_process else other))
    await after_query.reached.wait()
    after_query.open()
    assert await late == "Aust"
    assert await slow == "Austria"


async def test_readers_go_to_the_database_while_a_writer_is_between_commit_and_release(
    client: Client, other: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_release, release = Gate(), Writes.release

    async def stopped(self: Writes, *args: Any, **kwargs: Any) -> None:
        await before_release.pass_through()
        await release(self, *args, **kwargs)

    assert await name(other) == "Austria"
    monkeypatch.setattr(Writes, "release", stopped)
    before_release.close()
    writing = asyncio.create_task(rename(client, "Aust"))
    await before_release.reached.wait()
    for reader in (client, other):
        reader.statements.clear()
        for _ in range(2):
            assert await name(reader) == "Aust"
        assert len([s for s in reader.statements if "countries.alpha_2 =" in s]) >= 2
    before_release.open()
    await writing
    assert await name(other) == "Aust"


async def test_two_writers_of_one_country_leave_the_last_one_visible(
    client: Client, other: Client
) -> None:
    for number in range(10):
        await asyncio.gather(rename(client, f"A{number}"), rename(other, f"B{number}"))
        async with client.state["sessions"].read() as session:
            country = await repository.get(session, "AT")
        assert country is not None
        assert await name(client) == await name(other) == country.name
