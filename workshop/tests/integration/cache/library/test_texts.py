"""What cannot be understood is served and not stored; a write of that kind is refused, or ends
every entry."""

from typing import Any

import pytest

from tests.integration.cache.library.client import Library, Shelf
from tests.integration.cache.library.paths import UNCACHED, paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


TEXTS = [
    "update", "commented update", "writing CTE", "function", "call", "merge",
    "by the connection of a session", "by the driver", "function without a text",
]  # fmt: skip


def rename(shelf: Shelf, *tell: str) -> dict[str, Any]:
    return {"author_id": shelf["author_id"], **({"tell": tell} if tell else {})}


@pytest.mark.parametrize("read", UNCACHED)
async def test_an_answer_whose_tables_are_not_known_is_served_and_not_stored(
    library: Library, read: str
) -> None:
    [path], reason = paths_of(await library.shelf(), [read]), UNCACHED[read]
    counted = await library.counted("rejected|bypass", reason)
    answers = [await library.read(process, path) for process in ("a", "b", "a", "b")]
    assert {(answer.status, answer.is_hit, answer.detail) for answer in answers} == {
        (200, False, reason)
    }
    assert await library.counted("rejected|bypass", reason) == counted + 4


async def test_a_hit_does_not_count_as_an_answer_that_was_not_stored(library: Library) -> None:
    await library.warm(path := paths_of(await library.shelf(), ["joined"])[0])
    counted = await library.counted("rejected", ".*")
    assert (await library.read("b", path)).is_hit
    assert await library.counted("rejected", ".*") == counted


async def test_textual_sql_that_reads_nothing_of_ours_lives_until_it_expires(
    library: Library,
) -> None:
    shelf = await library.shelf()
    [(path, before)] = (await library.warm(f"/authors/{shelf['author_id']}/text-by-expiry")).items()
    await library.change("a", "/in-session/rename", shelf)
    answer = await library.read("b", path)
    assert answer.is_hit and answer == before


@pytest.mark.parametrize("way", TEXTS)
async def test_a_text_that_writes_and_says_so_is_seen(library: Library, way: str) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, ["author", "joined", "function", "text, told"]))
    # The tag of the row, where there is one; else the table.
    tag = f"author:{shelf['author_id']}" if library.variant == "tags" else "authors"
    await library.change("a", f"/texts/{way}", rename(shelf, tag))
    await library.check(before)


async def check_refused(library: Library, shelf: Shelf, url: str, body: object, why: str) -> None:
    """Nothing is written; in production it is, and every entry ends: slower, never stale."""
    before = await library.warm(*paths_of(shelf, ["author", "joined"]))
    [(unrelated, copies)] = (await library.warm(*paths_of(shelf, ["stock"]))).items()
    counted = await library.counted("refused", why)
    response = await library.post("a", url, body)
    if library.variant == "production":
        assert response.status_code == 204, response.text
        await library.check(before)
        answer = await library.read("b", unrelated)
        assert answer == copies and not answer.is_hit
        assert await library.counted("refused", why) == counted + 1
    else:
        assert response.status_code == 500
        for process in ("plain", "b"):
            assert await library.read_all(process, before) == [*before.values()]
        assert (await library.read("b", unrelated)).is_hit


@pytest.mark.parametrize("way", [*TEXTS, "over the engine"])
async def test_a_text_that_writes_and_does_not_say_so_is_refused(
    library: Library, way: str
) -> None:
    shelf = await library.shelf()
    url = "/engine-texts" if way == "over the engine" else f"/texts/{way}"
    await check_refused(library, shelf, url, rename(shelf), "textual-sql|function")
    assert 'invalidate(session, "' in library.servers.log("a")


async def test_the_line_to_add_names_the_table(library: Library) -> None:
    shelf = await library.shelf()
    await library.post("a", "/texts/update", rename(shelf))
    assert 'invalidate(session, "authors")' in library.servers.log("a")


@pytest.mark.parametrize("name", ["author:{author_id}", "magazines", "magazine:7", ""])
async def test_invalidate_takes_no_name_that_nobody_declares(library: Library, name: str) -> None:
    shelf = await library.shelf()
    await check_refused(library, shelf, "/told", rename(shelf, name), "unknown-name")
    assert f"invalidate(…, {name!r})" in library.servers.log("a")


async def test_a_text_that_only_reads_is_not_refused(library: Library) -> None:
    shelf = await library.shelf()
    [(path, before)] = (await library.warm(*paths_of(shelf, ["joined"]))).items()
    await library.change("a", "/texts/only reading", rename(shelf))
    answer = await library.read("b", path)
    assert answer == before and answer.is_hit
