"""What constraints of the database refuse is 409 in words, for tables of any resource."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text, Uuid, delete, func, insert

from app.database import Base, WriteSessionDep
from app.main import create_app
from app.settings import Settings
from tests.clients import Client, serving

SUN = "5c1a1b52-9c8a-4a3e-8a51-5b8b8e2f6a10"
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=["RESTRICT", "NO ACTION"])
async def client(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Client]:
    """`stars`, and `faint_moons` that refer to them."""
    stars = Table(
        "stars", Base.metadata, Column("id", Uuid, primary_key=True), Column("name", Text)
    )
    Index("ix_stars_name", func.lower(stars.c.name), unique=True)
    moons = Table(
        "faint_moons",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("star_id", ForeignKey("stars.id", ondelete=request.param)),
    )
    app = create_app(settings)

    @app.post("/stars")
    async def make_star(session: WriteSessionDep, name: str) -> None:
        await session.execute(insert(stars).values(id=NOWHERE, name=name))

    @app.delete("/stars")
    async def delete_stars(session: WriteSessionDep) -> None:
        await session.execute(delete(stars))

    @app.post("/moons")
    async def make_moon(session: WriteSessionDep, star: str) -> None:
        await session.execute(insert(moons).values(star_id=star))

    try:
        async with serving(app=app) as client:
            async with client.state["sessions"].write.begin() as session:
                tables = [stars, moons]
                connection = await session.connection()
                await connection.run_sync(Base.metadata.create_all, tables=tables)
                await session.execute(insert(stars).values(id=SUN, name="Sun"))
            yield client
    finally:
        Base.metadata.remove(moons)
        Base.metadata.remove(stars)


async def test_a_row_that_others_refer_to_stays_and_they_are_named(client: Client) -> None:
    assert (await client.post("/moons", params={"star": SUN})).status_code == 200
    refused = await client.delete("/stars")
    assert refused.status_code == 409
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["detail"] == "Some faint moons still refer to it."
    assert "errors" not in refused.json()


async def test_a_reference_to_nothing_is_named(client: Client) -> None:
    refused = await client.post("/moons", params={"star": NOWHERE})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "There is nothing with this star_id."
    named = {"location": "body", "field": "star_id", "message": "does not exist"}
    assert refused.json()["errors"] == [named]


async def test_what_a_unique_index_refuses_is_named(client: Client) -> None:
    refused = await client.post("/stars", params={"name": "SUN"})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "There is one already with this name."
