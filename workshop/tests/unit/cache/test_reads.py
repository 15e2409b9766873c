"""P9: what an entry depends on is learned from what its computation read."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from app.cache import Cache, InMemoryBackend
from app.cache.flights import Miss
from app.cache.policy import Policy, Tag, table_tag
from app.cache.reads import Learned, Unclear, recording
from app.cache.store import Computed

BOOKS = table_tag("books")


class Library:
    """A database of one table, and routes that read it."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.value, self.computed = cache, 1, 0
        self.learned: dict[str, Learned] = {}

    async def read_books(self) -> bytes:
        reads = recording.get()
        if reads is not None:
            reads.tables.add("books")
        return b"%d" % self.value

    async def fetch(
        self,
        compute: Callable[[], Awaitable[bytes]] | None = None,
        *,
        route: str = "route",
        key: str = "key",
        policy: Policy | None = None,
    ) -> bytes:
        async def computed() -> Computed:
            self.computed += 1
            return Computed(await (compute or self.read_books)())

        policy = policy or Policy(60)
        learned = self.learned.setdefault(route, Learned(route, policy))
        return await self.cache.fetch(
            Miss(f"{route} {key}", [route, *learned.tags], policy, learned, computed)
        )

    async def write(self) -> None:
        hold = await self.cache.writes.hold([BOOKS])
        self.value += 1
        await self.cache.writes.release(hold, changed=True)


@pytest.fixture
def library() -> Library:
    return Library(Cache(InMemoryBackend()))


async def test_what_a_route_reads_is_learned_at_its_first_answer(library: Library) -> None:
    for _ in range(3):
        assert await library.fetch() == b"1"
    assert library.computed == 2, "the first answer is not stored, as no generation was read"


async def test_a_change_of_a_table_ends_what_was_made_from_it(library: Library) -> None:
    for _ in range(2):
        await library.fetch()
    await library.write()
    assert await library.fetch() == b"2"


async def test_another_process_reads_what_an_entry_depends_on_in_the_entry(
    library: Library,
) -> None:
    for _ in range(2):
        await library.fetch()
    other = Library(library.cache)
    assert await other.fetch() == b"1"
    assert other.computed == 0
    await library.write()
    other.value = 2
    assert await other.fetch() == b"2"


async def test_who_joins_late_takes_nothing_that_depends_on_more_than_was_fenced(
    library: Library,
) -> None:
    has_read, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        value = await library.read_books()
        has_read.set()
        await gate.wait()
        return value

    early = asyncio.create_task(library.fetch(slow))
    await has_read.wait()
    await library.write()
    late = asyncio.create_task(library.fetch(library.read_books))
    await asyncio.sleep(0)
    gate.set()
    assert await early == b"1"
    assert await late == b"2"


async def test_a_function_hands_on_the_generations_that_it_read_itself(library: Library) -> None:
    async def through_a_function() -> bytes:
        value = await library.fetch(route="function")
        if wait:
            called.set()
            await gate.wait()
        return value

    called, gate, wait = asyncio.Event(), asyncio.Event(), False
    for _ in range(2):
        await library.fetch(route="function")
    wait = True
    slow = asyncio.create_task(library.fetch(through_a_function))
    await called.wait()
    await library.write()  # between the function's answer and that of the route
    wait = False
    gate.set()
    assert await slow == b"1"
    assert await library.fetch(through_a_function) == b"2"
    for _ in range(2):
        await library.fetch(through_a_function)
    await library.write()
    assert await library.fetch(through_a_function) == b"3"


@pytest.mark.parametrize("why", ["textual-sql", "view", "function"])
async def test_what_is_not_understood_is_served_and_not_stored(
    library: Library, why: Unclear
) -> None:
    async def unclear() -> bytes:
        reads = recording.get()
        assert reads is not None
        reads.unclear = why
        return b"answer"

    for _ in range(3):
        assert await library.fetch(unclear) == b"answer"
    assert library.computed == 3


async def test_a_route_may_say_what_its_textual_sql_reads(library: Library) -> None:
    async def textual() -> bytes:
        reads = recording.get()
        assert reads is not None
        reads.unclear = "textual-sql"
        return b"%d" % library.value

    policy = Policy(60, reads=("books",))
    for _ in range(2):
        assert await library.fetch(textual, policy=policy) == b"1"
    assert library.computed == 1
    await library.write()
    assert await library.fetch(textual, policy=policy) == b"2"


async def test_what_a_route_depends_on_is_said_once_and_again_when_it_is_more(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.cache")
    policy = Policy(60, tags=(Tag.parse("author:{id}"),))

    async def through_a_function() -> bytes:
        return await library.fetch(route="rates")

    for _ in range(3):
        await library.fetch(policy=policy)
    await library.write()
    await library.fetch(through_a_function, policy=policy)
    assert [message for message in caplog.messages if message.startswith("route")] == [
        "route depends on author:{id}, books (by table)",
        "route depends on author:{id}, books (by table), rates (function)",
    ]


async def test_a_route_that_reads_nothing_depends_on_its_expiry(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing() -> bytes:
        return b"8"

    caplog.set_level(logging.INFO, "app.cache")
    for _ in range(2):
        await library.fetch(nothing)
    assert caplog.messages == ["route depends on nothing but its expiry"]
    assert library.computed == 1


async def test_why_a_route_is_never_stored_is_said_once_with_the_line_to_write(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    async def unclear() -> bytes:
        reads = recording.get()
        assert reads is not None
        reads.unclear = "view"
        return b"answer"

    for _ in range(3):
        await library.fetch(unclear)
    [message] = caplog.messages
    assert message.startswith("route is not stored: what its views read is not known. Name the")
    await library.fetch(unclear, route="other", policy=Policy(60, reads=()))
    assert caplog.messages == [message]


class Covers:
    """Whoever has the tag `books` need not depend on the table."""

    def covered(self, families: frozenset[str]) -> frozenset[str]:
        return frozenset({"books"}) if "books" in families else frozenset()

    def problems(self, policy: Policy) -> tuple[str, ...]:
        return ()


async def test_the_first_answer_is_stored_where_declared_tags_cover_all_that_was_read() -> None:
    library = Library(Cache(InMemoryBackend(), coverage=Covers()))
    policy = Policy(60, tags=(Tag.parse("books"),))
    for _ in range(2):
        assert await library.fetch(policy=policy) == b"1"
    assert library.computed == 1
    assert [each.tags for each in library.learned.values()] == [()]


async def test_a_fresh_process_pays_once_for_a_route_whatever_is_asked_of_it(
    library: Library,
) -> None:
    for key in ("1", "2", "3", "1", "2", "3"):
        await library.fetch(key=key)
    assert library.computed == 4, "the first answer, and one for each key"


async def test_a_fresh_process_pays_once_for_functions_that_call_functions(
    library: Library,
) -> None:
    async def inner() -> bytes:
        return await library.fetch(route="inner")

    async def outer() -> bytes:
        return await library.fetch(inner, route="outer")

    for _ in range(3):
        assert await library.fetch(outer) == b"1"
    assert library.computed == 6, "the first answer of each, and one that is stored"
    await library.write()
    assert await library.fetch(outer) == b"2"
