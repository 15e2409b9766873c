"""What `/countries` and `/regions` cost PostgreSQL: how many statements, on which indexes."""

import pytest

from tests.clients import Client
from tests.plans import fill, page_plan, total_plan

# The checks go, as there are no 20,000 codes of two letters.
MANY_COUNTRIES = (
    "ALTER TABLE countries DROP CONSTRAINT ck_countries_alpha_2_shape,"
    " DROP CONSTRAINT ck_countries_alpha_3_shape, DROP CONSTRAINT ck_countries_numeric_shape",
    "INSERT INTO countries (alpha_2, alpha_3, numeric, name, region, subregion)"
    " SELECT code, code, code, 'Country ' || code, 'Region ' || n % 10, 'Subregion ' || n % 100"
    " FROM (SELECT n, chr(256 + n / 256) || chr(256 + n % 256) AS code"
    "       FROM generate_series(0, 19999) AS n) AS codes",
    "INSERT INTO country_currencies"
    " SELECT alpha_2, code"
    " FROM (SELECT alpha_2, row_number() OVER () % 178 AS n FROM countries"
    "       WHERE name LIKE 'Country _%' AND region LIKE 'Region %') AS countries"
    " JOIN (SELECT code, row_number() OVER () - 1 AS n FROM currencies) AS currencies USING (n)",
)
CODES = "pk_country_currencies"  # of the currencies of each country


@pytest.mark.parametrize("url", ["/countries?limit={}", "/countries?limit={}&currency=EUR&q=a"])
async def test_a_page_takes_one_statement_whatever_its_size(client: Client, url: str) -> None:
    for limit in (1, 20, 250):
        client.statements.clear()
        assert (await client.get(url.format(limit))).json()["items"]
        assert len(client.statements) == 1


@pytest.mark.parametrize("url", ["/countries/AT", "/regions"])
async def test_a_country_and_the_regions_take_one_statement(client: Client, url: str) -> None:
    await client.get(url)
    assert len(client.statements) == 1


async def test_a_page_behind_the_end_takes_one_more_for_the_total(client: Client) -> None:
    assert (await client.get("/countries?region=Oceania&offset=29")).json()["total"] == 29
    assert len(client.statements) == 2


async def test_a_filtered_page_is_read_in_order_from_the_index_of_its_filter(
    client: Client,
) -> None:
    await fill(client, *MANY_COUNTRIES)
    for url, index in {
        "/countries?limit=20": "uq_countries_name",
        "/countries?limit=20&region=Region 7": "ix_countries_region_name",
        "/countries?limit=20&subregion=Subregion 7": "ix_countries_subregion_name",
    }.items():
        assert await page_plan(client, url) == sorted([index, CODES]), url
    for url, index in {
        "/countries?limit=20&offset=1&region=Region 7": "ix_countries_region_name",
        "/countries?limit=20&offset=1&subregion=Subregion 7": "ix_countries_subregion_name",
    }.items():
        assert await total_plan(client, url) == [index], url


async def test_the_countries_of_a_currency_are_found_by_index(client: Client) -> None:
    await fill(client, *MANY_COUNTRIES)
    used = ["ix_country_currencies_currency_code", "pk_countries"]
    assert await page_plan(client, "/countries?currency=CHF") == sorted([*used, CODES, "sort"])
    assert used[0] in await total_plan(client, "/countries?currency=CHF&offset=1")


async def test_every_sort_field_has_an_index_for_both_directions(client: Client) -> None:
    await fill(client, *MANY_COUNTRIES)
    for field, index in {
        "alpha_2": "pk_countries",
        "alpha_3": "uq_countries_alpha_3",
        "numeric": "uq_countries_numeric",
        "name": "uq_countries_name",
        "region": "ix_countries_region_name",
        "subregion": "ix_countries_subregion_name",
    }.items():
        for sort in (field, f"-{field}"):
            plan = await page_plan(client, f"/countries?limit=20&sort={sort}")
            assert plan == sorted([index, CODES]), sort


async def test_one_country_is_read_by_its_primary_key(client: Client) -> None:
    await fill(client, *MANY_COUNTRIES)
    assert await page_plan(client, "/countries/AT") == ["pk_countries", CODES]


async def test_q_reads_every_row_on_purpose(client: Client) -> None:
    await fill(client, *MANY_COUNTRIES)
    assert await total_plan(client, "/countries?q=aus") == ["all of countries"]
