"""Lists and details come from the cache, and every write is seen by the next read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.cache import invalidate
from app.main import create_app
from app.settings import Settings
from tests.clients import (
    AUTHORIZED,
    Client,
    cache_status,
    make_settings,
    serving,
    until_hit,
    version,
)
from tests.services import StoppableRedis

READS = [
    "/countries",
    "/countries?limit=1&sort=-name",
    "/countries?region=Europe",
    "/countries?subregion=Western%20Europe&currency=EUR",
    "/countries?q=aus",
    "/countries?offset=10&limit=250",
    "/countries/AT",
    "/regions",
]
NARNIA = {
    "alpha_2": "XN",
    "alpha_3": "XNA",
    "numeric": "999",
    "name": "A country of Austrian beavers",
    "region": "Europe",
    "subregion": "Western Europe",
    "currencies": ["EUR"],
}


@pytest.fixture
async def uncached(settings: Settings) -> AsyncIterator[Client]:
    """What the database says: the same service, with a cache that is always empty."""
    async with serving(settings.model_copy(update={"cache_url": "memory://"})) as client:
        yield client


async def write(client: Client, name: str) -> httpx.Response:
    if name == "create":
        return await client.post("/countries", json=NARNIA, headers=AUTHORIZED)
    if name == "rename":
        return await client.patch("/countries/AT", json={"name": "Aust"}, headers=AUTHORIZED)
    if name == "move":
        move = {"region": "Asia", "subregion": "Western Asia"}
        return await client.patch("/countries/AT", json=move, headers=AUTHORIZED)
    if name == "new currency":
        change = {"currencies": ["CHF"]}
        return await client.patch("/countries/AT", json=change, headers=AUTHORIZED)
    return await client.delete("/countries/AT", headers=AUTHORIZED)


@pytest.mark.parametrize("url", READS)
async def test_the_second_read_sends_no_sql(client: Client, url: str) -> None:
    first = await client.get(url)
    assert cache_status(first).startswith("fwd=")
    assert client.statements
    second = await until_hit(client, url)
    assert client.statements == []
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["ETag"] == first.headers["ETag"]


async def test_a_read_that_is_up_to_date_is_304(client: Client) -> None:
    for url in ("/countries", "/countries/AT"):
        etag = (await client.get(url)).headers["ETag"]
        response = await client.get(url, headers={"If-None-Match": etag})
        assert (response.status_code, response.content) == (304, b"")


async def test_a_detail_whose_joined_data_changed_is_not_304(client: Client) -> None:
    """The row of the country, and its version, are as they were."""
    before = await client.get("/countries/AT")
    statement = "INSERT INTO country_currencies VALUES ('AT', 'CHF')"
    async with client.state["engine"].begin() as connection:
        await connection.execute(text(statement))
        invalidate(connection, "country:AT")
    known = {"If-None-Match": before.headers["ETag"]}
    after = await client.get("/countries/AT", headers=known)
    assert (after.status_code, after.json()["currencies"]) == (200, ["CHF", "EUR"])
    assert version(after) == version(before)
    condition = AUTHORIZED | {"If-Match": before.headers["ETag"]}
    change = {"official_name": "Ostarrichi"}
    assert (await client.patch("/countries/AT", json=change, headers=condition)).is_success


async def test_two_pages_do_not_share_an_entry(client: Client) -> None:
    first = await client.get("/countries?limit=10")
    second = await client.get("/countries?limit=10&offset=10")
    assert cache_status(second).startswith("fwd=")
    assert not {row["alpha_2"] for row in first.json()["items"]} & {
        row["alpha_2"] for row in second.json()["items"]
    }


@pytest.mark.parametrize("name", ["create", "rename", "move", "new currency", "delete"])
async def test_a_write_is_seen_by_every_next_read(
    client: Client, uncached: Client, name: str
) -> None:
    for url in READS:
        await client.get(url)
    assert (await write(client, name)).is_success
    for url in READS:
        response, truth = await client.get(url), await uncached.get(url)
        assert (response.status_code, response.json()) == (truth.status_code, truth.json()), url


async def test_a_refused_write_leaves_the_cache_alone(client: Client) -> None:
    await until_hit(client, "/countries")
    duplicate = NARNIA | {"alpha_3": "AUT"}
    response = await client.post("/countries", json=duplicate, headers=AUTHORIZED)
    assert response.status_code == 409
    assert cache_status(await client.get("/countries")) == "hit"


async def test_an_unknown_country_that_is_created_is_found(client: Client) -> None:
    assert (await client.get("/countries/XN")).status_code == 404
    await write(client, "create")
    assert (await client.get("/countries/XN")).status_code == 200


async def test_two_services_on_one_redis_see_each_others_writes(settings: Settings) -> None:
    async with serving(settings) as one, serving(settings) as other:
        for url in READS:
            await until_hit(one, url)
            await until_hit(other, url)
            assert other.statements == []
        await write(one, "rename")
        assert (await other.get("/countries/AT")).json()["name"] == "Aust"
        await write(other, "move")
        assert (await one.get("/countries/AT")).json()["region"] == "Asia"
        assert (await one.get("/regions")).json() == (await other.get("/regions")).json()


async def test_the_commit_comes_before_the_response(settings: Settings) -> None:
    """Another service reads when the first byte of the response to a write is sent."""
    app = create_app(settings)
    async with serving(settings) as reader, serving(app=app) as writer:
        seen: list[str] = []
        for url in READS:
            await reader.get(url)

        async def reading_at_first_byte(scope: Any, receive: Any, send: Any) -> None:
            async def read_then_send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    seen.append((await reader.get("/countries/AT")).json()["name"])
                await send(message)

            scope["state"] = dict(writer.state)
            await app(scope, receive, read_then_send)

        transport = httpx.ASGITransport(reading_at_first_byte)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for name in ("Ostarrichi", "Austria", "Ostmark"):
                await client.patch("/countries/AT", json={"name": name}, headers=AUTHORIZED)
        assert seen == ["Ostarrichi", "Austria", "Ostmark"]


async def test_a_redis_that_stops_is_not_noticed_and_is_used_again_when_it_is_back(
    database_url: str, own_redis: StoppableRedis
) -> None:
    settings = make_settings(database_url=database_url, cache_url=own_redis.url)
    async with serving(settings) as client:
        await until_hit(client, "/countries")
        await asyncio.to_thread(own_redis.stop)
        for _ in range(20):
            assert (await client.get("/countries")).status_code == 200
            assert (await client.get("/countries/AT")).status_code == 200
        client.statements.clear()
        assert (await client.get("/countries")).json()["total"] == 249
        assert client.statements
        assert (await write(client, "rename")).status_code == 200
        assert (await client.get("/countries/AT")).json()["name"] == "Aust"
        await asyncio.to_thread(own_redis.start)
        await until_hit(client, "/countries")
        await until_hit(client, "/countries/AT")
        assert (await client.get("/countries/AT")).json()["name"] == "Aust"


async def test_a_service_that_starts_without_redis_uses_it_when_it_comes(
    database_url: str, own_redis: StoppableRedis
) -> None:
    await asyncio.to_thread(own_redis.stop)
    settings = make_settings(database_url=database_url, cache_url=own_redis.url)
    async with serving(settings) as client:
        assert (await client.get("/countries")).status_code == 200
        await asyncio.to_thread(own_redis.start)
        await until_hit(client, "/countries")


async def test_cached_pages_do_not_need_the_tables(client: Client) -> None:
    cached = await until_hit(client, "/countries")
    async with client.state["engine"].connect() as connection:
        await connection.execute(text("ALTER TABLE countries RENAME TO gone"))
        invalidate(connection)
        await connection.commit()
    again = await client.get("/countries")
    assert (again.status_code, again.content) == (200, cached.content)
