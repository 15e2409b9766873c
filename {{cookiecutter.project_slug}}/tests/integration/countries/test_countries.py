"""`/countries` and `/regions`: what they answer, and what they refuse."""

from typing import Any

import httpx
import pytest

from tests.clients import AUTHORIZED, Client, version

AUSTRIA = {
    "alpha_2": "AT",
    "alpha_3": "AUT",
    "numeric": "040",
    "name": "Austria",
    "official_name": "Republic of Austria",
    "region": "Europe",
    "subregion": "Western Europe",
    "currencies": ["EUR"],
}
NARNIA: dict[str, Any] = {
    "alpha_2": "XN",
    "alpha_3": "XNA",
    "numeric": "999",
    "name": "Narnia",
    "official_name": "Kingdom of Narnia",
    "region": "Wardrobe",
    "subregion": None,
    "currencies": ["EUR", "USD"],
}


async def names(client: Client, **params: str | int) -> list[str]:
    response = await client.get("/countries", params={"limit": 250, **params})
    assert response.status_code == 200, response.text
    return [country["name"] for country in response.json()["items"]]


async def create(client: Client, **changes: Any) -> httpx.Response:
    return await client.post("/countries", json=NARNIA | changes, headers=AUTHORIZED)


async def test_the_countries_of_iso_3166_are_there(client: Client) -> None:
    page = (await client.get("/countries", params={"limit": 250})).json()
    assert page["total"] == len(page["items"]) == 249
    assert (page["limit"], page["offset"]) == (250, 0)
    assert AUSTRIA in page["items"]


async def test_one_country(client: Client) -> None:
    response = await client.get("/countries/AT")
    assert response.status_code == 200
    assert response.json() == AUSTRIA


async def test_filters_narrow_the_list(client: Client) -> None:
    assert len(await names(client, region="Oceania")) == 29
    assert "Austria" in await names(client, subregion="Western Europe")
    assert "Spain" not in await names(client, subregion="Western Europe")
    assert "Austria" in await names(client, currency="EUR", region="Europe")
    assert "Switzerland" not in await names(client, currency="EUR", region="Europe")
    assert await names(client, region="Atlantis") == []


async def test_q_finds_a_part_of_either_name_in_any_case(client: Client) -> None:
    assert await names(client, q="AUSTRI") == ["Austria"]
    assert "Austria" in await names(client, q="republic of aus")


@pytest.mark.parametrize("q", ["%", "_", "\\", "/", "A%a"])
async def test_q_means_what_it_says(client: Client, q: str) -> None:
    assert await names(client, q=q) == []


async def test_lists_sort_by_several_fields(client: Client) -> None:
    response = await client.get("/countries", params={"sort": "-region,alpha_3", "limit": 250})
    keys = [(row["region"] or "~", row["alpha_3"]) for row in response.json()["items"]]
    by_code = sorted(keys, key=lambda key: key[1])
    assert keys == sorted(by_code, key=lambda key: key[0], reverse=True)


async def test_pages_of_rows_that_sort_alike_neither_repeat_nor_miss_any(client: Client) -> None:
    seen: list[str] = []
    for offset in range(0, 249, 83):
        params: dict[str, str | int] = {"sort": "-region", "limit": 83, "offset": offset}
        page = (await client.get("/countries", params=params)).json()
        assert (page["total"], page["limit"], page["offset"]) == (249, 83, offset)
        seen += [row["alpha_2"] for row in page["items"]]
    assert len(seen) == len(set(seen)) == 249


async def test_a_page_behind_the_end_is_empty_and_knows_the_total(client: Client) -> None:
    page = (await client.get("/countries", params={"offset": 100_000})).json()
    assert (page["items"], page["total"]) == ([], 249)


async def test_undeclared_parameters_change_nothing(client: Client) -> None:
    assert await names(client, utm_source="mail") == await names(client)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "251"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"offset": "100001"}, "offset"),
        ({"sort": "official_name"}, "sort"),
        ({"sort": "version"}, "sort"),
        ({"currency": "eur"}, "currency"),
        ({"region": ""}, "region"),
        ({"q": "a\0b"}, "q"),
        ({"q": "a" * 201}, "q"),
    ],
)
async def test_bad_parameters_are_422(client: Client, params: dict[str, str], field: str) -> None:
    response = await client.get("/countries", params=params)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_an_unknown_sort_field_is_answered_with_the_known_ones(client: Client) -> None:
    response = await client.get("/countries", params={"sort": "size"})
    assert "alpha_2, alpha_3, numeric, name, region, subregion" in response.text


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_country_is_404_and_a_malformed_code_422(
    client: Client, method: str
) -> None:
    body: dict[str, Any] | None = {} if method == "PATCH" else None
    for code, status in [("XX", 404), ("at", 422), ("AUT", 422), ("A\0", 422)]:
        url = httpx.URL("/countries/").join(f"/countries/{code.replace(chr(0), '%00')}")
        response = await client.request(method, url, headers=AUTHORIZED, json=body)
        assert response.status_code == status, code
        assert response.headers["Content-Type"] == "application/problem+json"


async def test_a_created_country_is_where_location_says(client: Client) -> None:
    response = await create(client)
    assert response.status_code == 201
    assert response.json() == NARNIA
    read = await client.get(response.headers["Location"])
    assert read.json() == NARNIA
    assert version(read) == version(response)


async def test_four_fields_are_enough(client: Client) -> None:
    needed = {name: NARNIA[name] for name in ("alpha_2", "alpha_3", "numeric", "name")}
    response = await client.post("/countries", json=needed, headers=AUTHORIZED)
    assert response.status_code == 201
    assert response.json() == needed | {
        "official_name": None,
        "region": None,
        "subregion": None,
        "currencies": [],
    }


async def test_text_is_stripped_and_currencies_are_a_set(client: Client) -> None:
    response = await create(client, name="  Narnia ", currencies=["USD", "EUR", "USD"])
    assert response.json() == NARNIA


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"alpha_2": "xn"}, "alpha_2"),
        ({"alpha_2": "XN\n"}, "alpha_2"),
        ({"alpha_3": "XN"}, "alpha_3"),
        ({"numeric": 999}, "numeric"),
        ({"numeric": "٣٣٣"}, "numeric"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": None}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"official_name": "\0"}, "official_name"),
        ({"currencies": ["eur"]}, "currencies/0"),
        ({"currencies": None}, "currencies"),
        ({"currencies": ["XQQ", "EUR", "AQQ"]}, "currencies"),
        ({"version": "1"}, "version"),
    ],
)
async def test_bad_bodies_are_422_and_name_the_field(
    client: Client, changes: dict[str, Any], field: str
) -> None:
    created = await create(client, **changes)
    assert created.status_code == 422
    assert created.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in created.json()["errors"]] == [field]
    if field == "alpha_2":
        return  # below: what holds for a new country holds for a change
    changed = await client.patch("/countries/AT", json=changes, headers=AUTHORIZED)
    assert changed.status_code == 422
    assert [error["field"] for error in changed.json()["errors"]] == [field]


async def test_unknown_currencies_are_all_named(client: Client) -> None:
    response = await create(client, currencies=["XQQ", "EUR", "AQQ"])
    assert response.json()["detail"] == "currencies: unknown: AQQ, XQQ"


@pytest.mark.parametrize(
    ("field", "value"),
    [("alpha_2", "AT"), ("alpha_3", "AUT"), ("numeric", "040"), ("name", "Austria")],
)
async def test_a_duplicate_is_409_and_names_the_field(
    client: Client, field: str, value: str
) -> None:
    response = await create(client, **{field: value})
    assert response.status_code == 409
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_patch_changes_what_it_names_and_nothing_else(client: Client) -> None:
    response = await client.patch(
        "/countries/AT",
        json={"name": "Ostarrichi", "official_name": None, "currencies": ["USD", "CHF"]},
        headers=AUTHORIZED,
    )
    expected = AUSTRIA | {
        "name": "Ostarrichi",
        "official_name": None,
        "currencies": ["CHF", "USD"],
    }
    assert response.status_code == 200
    assert response.json() == expected
    assert (await client.get("/countries/AT")).json() == expected


async def test_the_code_of_a_country_cannot_be_changed(client: Client) -> None:
    response = await client.patch("/countries/AT", json={"alpha_2": "XX"}, headers=AUTHORIZED)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["alpha_2"]


async def test_a_patch_to_a_name_that_is_taken_is_409(client: Client) -> None:
    response = await client.patch("/countries/AT", json={"name": "Spain"}, headers=AUTHORIZED)
    assert response.status_code == 409
    assert (await client.get("/countries/AT")).json() == AUSTRIA


@pytest.mark.parametrize("change", [{"name": "Ostarrichi"}, {"currencies": ["CHF"]}])
async def test_every_change_gives_a_new_etag(client: Client, change: dict[str, Any]) -> None:
    read = await client.get("/countries/AT")
    before = read.headers["ETag"]
    response = await client.patch(
        "/countries/AT", json=change, headers=AUTHORIZED | {"If-Match": before}
    )
    assert response.status_code == 200
    assert version(response) != version(read)
    assert version(await client.get("/countries/AT")) == version(response)
    repeated = await client.patch(
        "/countries/AT", json=change, headers=AUTHORIZED | {"If-Match": before}
    )
    assert repeated.status_code == 412
    assert repeated.headers["Content-Type"] == "application/problem+json"


async def test_a_country_that_is_made_again_never_repeats_an_etag(client: Client) -> None:
    first = await create(client)
    await client.delete("/countries/XN", headers=AUTHORIZED)
    assert version(await create(client)) != version(first)


async def test_a_delete_honours_if_match(client: Client) -> None:
    etag = (await client.get("/countries/AT")).headers["ETag"]
    stale = {"If-Match": '"00000000000000000000000000000000"'}
    assert (await client.delete("/countries/AT", headers=AUTHORIZED | stale)).status_code == 412
    fresh = {"If-Match": f"{stale['If-Match']}, {etag}"}
    deleted = await client.delete("/countries/AT", headers=AUTHORIZED | fresh)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get("/countries/AT")).status_code == 404


@pytest.mark.parametrize(
    ("method", "url"),
    [("POST", "/countries"), ("PATCH", "/countries/AT"), ("DELETE", "/countries/AT")],
)
async def test_a_write_without_the_token_is_401_and_changes_nothing(
    client: Client, method: str, url: str
) -> None:
    body = NARNIA if method == "POST" else {"name": "x"}
    response = await client.request(method, url, json=body)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    page = (await client.get("/countries", params={"limit": 250})).json()
    assert page["total"] == 249
    assert AUSTRIA in page["items"]


async def test_an_unknown_method_is_405_and_says_what_is_allowed(client: Client) -> None:
    for url, allowed in [("/countries", "GET, POST"), ("/countries/AT", "DELETE, GET, PATCH")]:
        response = await client.put(url, json=NARNIA, headers=AUTHORIZED)
        assert (response.status_code, response.headers["Allow"]) == (405, allowed)


async def test_regions_count_their_countries(client: Client) -> None:
    page = (await client.get("/regions")).json()
    assert page["total"] == len(page["items"]) == 5
    assert {"name": "Oceania", "countries": 29} in page["items"]
    assert sum(region["countries"] for region in page["items"]) == 248  # without Antarctica
    paged = (await client.get("/regions", params={"limit": 2, "offset": 1})).json()
    assert paged["items"] == page["items"][1:3]
    assert paged["total"] == 5
