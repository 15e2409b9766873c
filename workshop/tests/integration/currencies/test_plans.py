"""What `/currencies` costs PostgreSQL: how many statements, on which indexes."""

import pytest

from tests.clients import Client
from tests.plans import fill, page_plan, total_plan

# The checks go, as there are no 20,000 numbers of three digits.
MANY_CURRENCIES = (
    "ALTER TABLE currencies DROP CONSTRAINT ck_currencies_code_shape,"
    " DROP CONSTRAINT ck_currencies_numeric_shape",
    "INSERT INTO currencies (code, numeric, name, minor_units)"
    " SELECT code, code, 'Currency ' || code, n % 10"
    " FROM (SELECT n, chr(256 + n / 256) || chr(256 + n % 256) AS code"
    "       FROM generate_series(0, 19999) AS n) AS codes",
)


@pytest.mark.parametrize("url", ["/currencies?limit={}", "/currencies?limit={}&minor_units=2&q=a"])
async def test_a_page_takes_one_statement_whatever_its_size(client: Client, url: str) -> None:
    for limit in (1, 20, 250):
        client.statements.clear()
        assert (await client.get(url.format(limit))).json()["items"]
        assert len(client.statements) == 1


async def test_a_currency_takes_one_statement(client: Client) -> None:
    await client.get("/currencies/EUR")
    assert len(client.statements) == 1


async def test_a_page_behind_the_end_takes_one_more_for_the_total(client: Client) -> None:
    assert (await client.get("/currencies?offset=178")).json()["total"] == 178
    assert len(client.statements) == 2


async def test_a_filtered_page_is_read_in_order_from_the_index_of_its_filter(
    client: Client,
) -> None:
    await fill(client, *MANY_CURRENCIES)
    assert await page_plan(client, "/currencies?limit=20") == ["pk_currencies"]
    filtered = "/currencies?limit=20&minor_units=7"
    assert await page_plan(client, filtered) == ["ix_currencies_minor_units_code"]
    assert await total_plan(client, f"{filtered}&offset=1") == ["ix_currencies_minor_units_code"]


async def test_the_sort_fields_but_the_name_have_an_index_for_both_directions(
    client: Client,
) -> None:
    await fill(client, *MANY_CURRENCIES)
    for field, index in {
        "code": "pk_currencies",
        "numeric": "uq_currencies_numeric",
        "minor_units": "ix_currencies_minor_units_code",
    }.items():
        for sort in (field, f"-{field}"):
            assert await page_plan(client, f"/currencies?limit=20&sort={sort}") == [index], sort


async def test_one_currency_is_read_by_its_primary_key(client: Client) -> None:
    await fill(client, *MANY_CURRENCIES)
    assert await page_plan(client, "/currencies/EUR") == ["pk_currencies"]


async def test_q_reads_every_row_on_purpose(client: Client) -> None:
    await fill(client, *MANY_CURRENCIES)
    assert await total_plan(client, "/currencies?q=euro") == ["all of currencies"]
