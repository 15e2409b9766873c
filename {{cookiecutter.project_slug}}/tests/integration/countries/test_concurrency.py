"""Writers at the same time: what one is told stays true."""

import asyncio
from typing import Any

from app.settings import Settings
from tests.clients import AUTHORIZED, Client, serving, version

WRITERS = 8


def country(number: int = 0) -> dict[str, Any]:
    letter = chr(ord("A") + number)
    return {
        "alpha_2": f"X{letter}",
        "alpha_3": f"XX{letter}",
        "numeric": f"99{number}",
        "name": f"Number {number}",
        "currencies": ["EUR"],
    }


async def test_of_writers_that_read_the_same_version_exactly_one_wins(settings: Settings) -> None:
    async with serving(settings) as one, serving(settings) as other:
        etag = (await one.get("/countries/AT")).headers["ETag"]
        headers = AUTHORIZED | {"If-Match": etag}
        responses = await asyncio.gather(
            *(
                client.patch("/countries/AT", json={"name": f"Name {number}"}, headers=headers)
                for number, client in enumerate([one, other] * (WRITERS // 2))
            )
        )
        assert sorted(response.status_code for response in responses) == [200] + [412] * (
            WRITERS - 1
        )
        winner = next(response for response in responses if response.status_code == 200)
        for client in (one, other):
            read = await client.get("/countries/AT")
            assert read.json() == winner.json()
            assert version(read) == version(winner)


async def test_of_writers_that_create_the_same_country_exactly_one_does(client: Client) -> None:
    responses = await asyncio.gather(
        *(client.post("/countries", json=country(), headers=AUTHORIZED) for _ in range(WRITERS))
    )
    assert sorted(response.status_code for response in responses) == [201] + [409] * (WRITERS - 1)
    assert (await client.get("/countries")).json()["total"] == 250


async def test_changes_of_different_fields_are_all_kept(client: Client) -> None:
    changes = [{"name": "Ostarrichi"}, {"region": "Asia"}, {"currencies": ["CHF"]}]
    responses = await asyncio.gather(
        *(client.patch("/countries/AT", json=change, headers=AUTHORIZED) for change in changes)
    )
    assert {response.status_code for response in responses} == {200}
    read = (await client.get("/countries/AT")).json()
    assert (read["name"], read["region"], read["currencies"]) == ("Ostarrichi", "Asia", ["CHF"])


async def test_of_a_delete_and_a_change_neither_fails_unexpectedly(client: Client) -> None:
    changed, deleted, again = await asyncio.gather(
        client.patch("/countries/AT", json={"name": "Ostarrichi"}, headers=AUTHORIZED),
        client.delete("/countries/AT", headers=AUTHORIZED),
        client.delete("/countries/AT", headers=AUTHORIZED),
    )
    assert changed.status_code in (200, 404)
    assert sorted((deleted.status_code, again.status_code)) == [204, 404]
    assert (await client.get("/countries/AT")).status_code == 404


async def test_a_currency_is_not_deleted_under_a_country_that_begins_to_use_it(
    client: Client,
) -> None:
    for number in range(5):
        code = f"QQ{chr(ord('A') + number)}"
        currency = {"code": code, "numeric": f"00{number}", "name": code}
        assert (
            await client.post("/currencies", json=currency, headers=AUTHORIZED)
        ).status_code == 201
        created, deleted = await asyncio.gather(
            client.post(
                "/countries", json=country(number) | {"currencies": [code]}, headers=AUTHORIZED
            ),
            client.delete(f"/currencies/{code}", headers=AUTHORIZED),
        )
        assert (created.status_code, deleted.status_code) in [(201, 409), (422, 204)]


async def test_readers_during_writes_see_only_what_was_committed_and_never_go_back(
    settings: Settings,
) -> None:
    async with serving(settings) as reader, serving(settings) as writer:
        acknowledged = 0
        done = False

        async def read() -> None:
            while not done:
                before = acknowledged
                name = (await reader.get("/countries/AT")).json()["name"]
                seen = 0 if name == "Austria" else int(name.removeprefix("Name "))
                assert seen >= before

        readers = [asyncio.create_task(read()) for _ in range(3)]
        for number in range(1, 30):
            change = {"name": f"Name {number}"}
            await writer.patch("/countries/AT", json=change, headers=AUTHORIZED)
            acknowledged = number
        done = True
        await asyncio.gather(*readers)
