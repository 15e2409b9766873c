"""The table of rows is whole, and the traffic of a row is what it says."""

from collections import Counter

import pytest

from benchmarks.__main__ import choose_rows
from benchmarks.figures import REDIS_DATABASE
from benchmarks.rows import ROWS
from benchmarks.traffic import SORT_FIELDS, changes, country_codes, every_country, unseen_pages


def test_rows_have_names_of_their_own_and_are_set_against_rows_that_exist() -> None:
    names = Counter(row.name for row in ROWS)
    assert set(names.values()) == {1}
    assert {row.against for row in ROWS} - {""} <= names.keys()


def test_every_target_has_a_redis_database_of_its_own() -> None:
    assert len({row.target for row in ROWS}) < REDIS_DATABASE


def test_what_a_row_is_set_against_is_measured_with_it() -> None:
    chosen = [row.name for row in choose_rows(ROWS, "^miss")]
    assert chosen == ["uncached, 20 items", "miss, 20 items"]


def test_no_page_is_asked_for_twice_in_no_run() -> None:
    pages = unseen_pages("/countries")
    paths = [request.path for run in (0, 1, 7) for request in pages(run)]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("run", [0, 42])
def test_every_page_is_a_full_one_in_an_order_that_exists(run: int) -> None:
    for request in unseen_pages("/countries")(run)[::1000]:
        parameters = dict(part.split("=") for part in request.path.partition("?")[2].split("&"))
        assert int(parameters["offset"]) + int(parameters["limit"]) <= 249
        assert parameters["sort"].strip("+").removeprefix("-") in SORT_FIELDS


def test_each_write_gives_its_country_another_name() -> None:
    assert len(country_codes()) == 249
    requests = [*changes(0), *changes(1)]
    for code in country_codes():
        bodies = [request.body for request in requests if request.path == f"/countries/{code}"]
        assert len(bodies) > 2
        assert len(set(bodies)) == len(bodies)


def test_details_are_asked_for_in_turn() -> None:
    assert len({request.path for request in every_country(0)}) == 249
