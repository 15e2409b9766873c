"""What a route depends on is learned by each process once, said once, and kept.

Each test asks the new process for routes that no other test asks it for.
"""

import re

import pytest

from tests.integration.cache.library.client import Library
from tests.integration.cache.library.paths import READS, UNCACHED, paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_new_process_that_answers_from_the_entries_of_others_is_true(
    library: Library,
) -> None:
    """It has computed nothing: what an entry depends on is known with the entry."""
    shelf = await library.shelf()
    names = ("joined", "words", "shared function", "text, told")
    before = await library.warm(*paths_of(shelf, names))
    assert await library.read_all("new", before) == [*before.values()]
    for change in ("/statements/rename/in a session", "/statements/add a genre/in a session"):
        await library.change("b", change, shelf)
        truth = await library.read_all("plain", before)
        assert await library.read_all("new", before) == truth


@pytest.mark.parametrize("read", ["orders", "two levels", "by connection", "genres"])
async def test_a_new_process_learns_each_route_once(library: Library, read: str) -> None:
    """The first answer may teach it the tables; by the second they are known."""
    details = [
        (await library.read("new", path)).detail
        for path in [paths_of(await library.shelf(), [read])[0] for _ in range(3)]
    ]
    unknown = {"learning", "function-not-stored"}
    assert details[0] in {"", *unknown}
    assert unknown.isdisjoint(details[1:])


async def test_the_first_answer_is_stored_where_the_tags_cover_all_that_is_read(
    library: Library,
) -> None:
    [path] = paths_of(await library.shelf(), ["author"])
    answer = await library.read("new", path)
    if library.variant == "tags":
        assert "stored" in answer.cache
    else:
        assert answer.detail == "learning"


@pytest.mark.parametrize("read", ["joinedload", "best", "selectinload", "function"])
async def test_a_write_right_after_the_first_answer_of_a_new_process_is_seen(
    library: Library, read: str
) -> None:
    shelf = await library.shelf()
    [path] = paths_of(shelf, [read])
    first = await library.read("new", path)
    await library.change("b", "/statements/rename/in a session", shelf)
    answer = await library.read("new", path)
    assert answer == await library.read("plain", path) != first


@pytest.mark.parametrize("read", [read for read in READS if read not in UNCACHED])
async def test_what_is_understood_is_a_hit_the_second_time_once_its_route_is_known(
    library: Library, read: str
) -> None:
    known, path = [paths_of(await library.shelf(), [read])[0] for _ in "12"]
    await library.warm(known)
    first = await library.read("a", path)
    assert await library.read("b", path) == first
    # The entry is stored after the answer was sent, and the tables are known to both processes.
    assert await library.warm(path) == {path: first}


async def test_what_was_learned_of_a_route_is_said_once_where_its_authors_look(
    library: Library,
) -> None:
    for _ in range(3):
        await library.warm(*paths_of(await library.shelf(), ["joined", "unfiltered"]))
    said = re.findall(r"GET (\S+) depends on (.*?) \[", library.servers.log("a"))
    of_authors, of_books = "/authors/{author_id}/books", "/books"
    assert [depends for depends in said if depends[0] in (of_authors, of_books)] == {
        "tags": [
            (of_authors, "books-of:{author_id}, authors (by table)"),
            (of_books, "books-of:{author_id}"),
        ],
        "no-tags": [(of_authors, "authors, books (by table)"), (of_books, "books (by table)")],
        "production": [],
    }[library.variant]
