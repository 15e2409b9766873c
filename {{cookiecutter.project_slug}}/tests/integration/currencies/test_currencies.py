"""`/currencies`: what it answers, what it refuses, and that it is cached."""

from typing import Any

import httpx
import pytest

from tests.clients import AUTHORIZED, Client, until_hit, version

EURO = {"code": "EUR", "numeric": "978", "name": "Euro", "minor_units": 2}
GALLEON: dict[str, Any] = {"code": "XGG", "numeric": "001", "name": "Galleon", "minor_units": 3}
READS = [
    "/currencies",
    "/currencies?minor_units=2",
    "/currencies?q=eur&sort=-name",
    "/currencies/EUR",
]


async def codes(client: Client, **params: str | int) -> list[str]:
    response = await client.get("/currencies", params={"limit": 250, **params})
    assert response.status_code == 200, response.text
    return [currency["code"] for currency in response.json()["items"]]


async def create(client: Client, **changes: Any) -> httpx.Response:
    return await client.post("/currencies", json=GALLEON | changes, headers=AUTHORIZED)


async def test_the_currencies_of_iso_4217_are_there(client: Client) -> None:
    page = (await client.get("/currencies", params={"limit": 250})).json()
    assert page["total"] == len(page["items"]) == 178
    assert EURO in page["items"]
    assert (await client.get("/currencies/EUR")).json() == EURO


async def test_filters_narrow_the_list(client: Client) -> None:
    assert "JPY" in await codes(client, minor_units=0)
    assert "EUR" not in await codes(client, minor_units=0)
    assert "EUR" in await codes(client, q="EURO")
    assert await codes(client, q="%") == []


async def test_currencies_without_minor_units_sort_last(client: Client) -> None:
    ordered = await codes(client, sort="minor_units,code")
    assert ordered.index("JPY") < ordered.index("EUR") < ordered.index("XAU")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"minor_units": "-1"}, "minor_units"),
        ({"minor_units": "99999999999"}, "minor_units"),
        ({"sort": "version"}, "sort"),
        ({"limit": "251"}, "limit"),
        ({"q": "\0"}, "q"),
    ],
)
async def test_bad_parameters_are_422(client: Client, params: dict[str, str], field: str) -> None:
    response = await client.get("/currencies", params=params)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_currency_is_404_and_a_malformed_code_422(
    client: Client, method: str
) -> None:
    body: dict[str, Any] | None = {} if method == "PATCH" else None
    for code, status in [("XQQ", 404), ("eur", 422), ("EU", 422)]:
        response = await client.request(
            method, f"/currencies/{code}", headers=AUTHORIZED, json=body
        )
        assert response.status_code == status, code
        assert response.headers["Content-Type"] == "application/problem+json"


async def test_a_created_currency_is_where_location_says(client: Client) -> None:
    response = await create(client)
    assert response.status_code == 201
    read = await client.get(response.headers["Location"])
    assert read.json() == response.json() == GALLEON
    assert version(read) == version(response)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"code": "xgg"}, "code"),
        ({"numeric": "1"}, "numeric"),
        ({"name": None}, "name"),
        ({"minor_units": -1}, "minor_units"),
        ({"minor_units": 10}, "minor_units"),
        ({"symbol": "G"}, "symbol"),
    ],
)
async def test_bad_bodies_are_422_and_name_the_field(
    client: Client, changes: dict[str, Any], field: str
) -> None:
    response = await create(client, **changes)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize(("field", "value"), [("code", "EUR"), ("numeric", "978")])
async def test_a_duplicate_is_409_and_names_the_field(
    client: Client, field: str, value: str
) -> None:
    response = await create(client, **{field: value})
    assert response.status_code == 409
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_patch_changes_what_it_names_and_gives_a_new_etag(client: Client) -> None:
    read = await client.get("/currencies/EUR")
    before = read.headers["ETag"]
    headers = AUTHORIZED | {"If-Match": before}
    response = await client.patch("/currencies/EUR", json={"minor_units": None}, headers=headers)
    assert response.status_code == 200
    assert response.json() == EURO | {"minor_units": None}
    assert version(response) != version(read)
    repeated = await client.patch("/currencies/EUR", json={"minor_units": 1}, headers=headers)
    assert repeated.status_code == 412
    assert (await client.get("/currencies/EUR")).json() == EURO | {"minor_units": None}


async def test_the_code_of_a_currency_cannot_be_changed(client: Client) -> None:
    response = await client.patch("/currencies/EUR", json={"code": "XEU"}, headers=AUTHORIZED)
    assert response.status_code == 422


async def test_a_currency_nobody_uses_can_be_deleted(client: Client) -> None:
    await create(client)
    stale = AUTHORIZED | {"If-Match": '"0"'}
    assert (await client.delete("/currencies/XGG", headers=stale)).status_code == 412
    assert (await client.delete("/currencies/XGG", headers=AUTHORIZED)).status_code == 204
    assert (await client.get("/currencies/XGG")).status_code == 404


async def test_a_currency_in_use_is_409_and_stays(client: Client) -> None:
    await until_hit(client, "/currencies/EUR")
    used = await client.delete("/currencies/EUR", headers=AUTHORIZED)
    assert used.status_code == 409
    assert used.json()["detail"] == "Some country currencies still refer to it."
    assert (await client.get("/currencies/EUR")).json() == EURO


@pytest.mark.parametrize(
    ("method", "url"),
    [("POST", "/currencies"), ("PATCH", "/currencies/EUR"), ("DELETE", "/currencies/XAU")],
)
async def test_a_write_without_the_token_is_401_and_changes_nothing(
    client: Client, method: str, url: str
) -> None:
    assert (await client.request(method, url, json=GALLEON)).status_code == 401
    page = (await client.get("/currencies", params={"limit": 250})).json()
    assert page["total"] == 178
    assert EURO in page["items"]


@pytest.mark.parametrize("url", READS)
async def test_the_second_read_sends_no_sql(client: Client, url: str) -> None:
    first = await client.get(url)
    second = await until_hit(client, url)
    assert client.statements == []
    assert second.content == first.content


async def test_every_write_is_seen_by_every_next_read(client: Client) -> None:
    async def totals() -> list[int]:
        return [(await client.get(url)).json()["total"] for url in READS[:-1]]

    before = await totals()
    await create(client, name="Eurogalleon", minor_units=2)
    assert await totals() == [total + 1 for total in before]

    await client.get("/currencies/EUR")
    await client.patch("/currencies/EUR", json={"name": "New euro"}, headers=AUTHORIZED)
    assert (await client.get("/currencies/EUR")).json()["name"] == "New euro"
    listed = (await client.get("/currencies?q=eur&sort=-name")).json()["items"]
    assert "New euro" in [row["name"] for row in listed]

    await client.delete("/currencies/XGG", headers=AUTHORIZED)
    assert await totals() == before
