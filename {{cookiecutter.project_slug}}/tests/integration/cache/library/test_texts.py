"""What cannot be understood is served and not stored."""

from typing import Any

import pytest

from tests.integration.cache.library.client import Library, Shelf
from tests.integration.cache.library.paths import UNCACHED, paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


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


async def test_a_text_that_only_reads_is_not_refused(library: Library) -> None:
    shelf = await library.shelf()
    [(path, before)] = (await library.warm(*paths_of(shelf, ["joined"]))).items()
    await library.change("a", "/texts/only reading", rename(shelf))
    answer = await library.read("b", path)
    assert answer == before and answer.is_hit
