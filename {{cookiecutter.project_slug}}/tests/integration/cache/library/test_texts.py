"""What cannot be understood is served and not stored."""

import pytest

from tests.integration.cache.library.client import Library
from tests.integration.cache.library.paths import UNCACHED, paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
