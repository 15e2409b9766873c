"""P9 and P10: an answer depends on each table that it reads, however it reads it; and whichever way
a table is changed, the next read through another process is true."""

import pytest

from tests.integration.cache.library.client import Library
from tests.integration.cache.library.paths import READS, paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

RENAMED = (
    "author", "columns", "joined", "joined finely", "joinedload", "selectinload", "best",
    "by connection", "function", "two levels", "shared function", "text, told", "text",
    "text in a column", "from text", "text in a function", "view", "database function",
)  # fmt: skip
ADDED = (
    "joined", "joined finely", "filtered", "unfiltered", "selectinload", "words", "statistic",
    "two levels", "text, told", "text", "text in a column",
)  # fmt: skip
MOVED = ("joined", "filtered", "joinedload", "selectinload", "statistic", "ordered")
REMOVED = (
    "joined", "joinedload", "ordered", "sold", "orders", "favourites", "review", "reviewed",
    "stock", "genre used", "genres", "best", "shared function",
)  # fmt: skip

# What each way changes, among other reads. That these change is checked, too.
SESSION = {
    "rename": RENAMED,
    "merge": ("author", "joined"),
    "bulk update by keys": ("author", "joined"),
    "bulk_update_mappings": ("author", "joined"),
    "add": ADDED,
    "add by a relationship": ("joined", "selectinload", "statistic"),
    "bulk insert": ("joined", "selectinload", "statistic"),
    "bulk_save_objects": ("joined", "selectinload", "statistic"),
    "move": MOVED,
    "remove": REMOVED,
    "delete the author": ("author", *REMOVED),
    "add a genre": ("genres", "selectinload", "words"),
    "remove genres": ("genres", "selectinload", "words", "genre used"),
    "rekey the genre": ("genres", "genre used"),
    "order": ("orders", "sold", "best"),
    "like": ("favourites",),
    "review": ("reviewed", "statistic"),
}
STATEMENTS = {
    "rename": RENAMED,
    "rename by the model": RENAMED,
    "rename, returning": ("author", "joined"),
    "rename in a CTE": ("author", "joined"),
    "rename by upsert": ("author", "joined"),
    "add": ADDED,
    "add by the model": ("joined", "selectinload", "statistic"),
    "add from a SELECT": ("joined", "selectinload", "statistic"),
    "move, looking at reviews": MOVED,
    # What foreign keys drag along: ON DELETE CASCADE and SET NULL, ON UPDATE CASCADE.
    "remove": REMOVED,
    "remove by the model": REMOVED,
    "delete the author": ("author", *REMOVED),
    "delete the author by the model": ("author", *REMOVED),
    "rekey the genre": ("genres", "genre used"),
    # Association tables, upserts, statements that only look at a second table.
    "add a genre": ("genres", "selectinload", "words"),
    "remove genres": ("genres", "selectinload", "words", "genre used"),
    "count stock by upsert": ("stock",),
    "count stock by upsert of the model": ("stock",),
    "cancel, looking at books": ("orders", "sold", "best", "ordered"),
}
OTHER_WAYS = [
    (statement, how, ("author", "joined") if statement == "rename" else reads)
    for statement, reads in [("rename", RENAMED), ("delete the author", REMOVED)]
    for how in (
        "in a savepoint",
        "by the connection of a session",
        "over the engine",
        "with a commit of its own",
        "over the engine with options",
        "in a session of its own",
        "in a session of a connection",
        "before a savepoint that is rolled back",
    )
]


async def test_each_read_is_changed_by_some_statement() -> None:
    changed = {read for reads in (*SESSION.values(), *STATEMENTS.values()) for read in reads}
    assert changed == READS.keys()


@pytest.mark.parametrize("way", SESSION)
async def test_what_a_session_changes_is_seen(library: Library, way: str) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, SESSION[way]))
    await library.change("a", f"/in-session/{way}", shelf)
    await library.check(before)


@pytest.mark.parametrize("way", STATEMENTS)
async def test_what_a_statement_changes_is_seen(library: Library, way: str) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, STATEMENTS[way]))
    await library.change("a", f"/statements/{way}/in a session", shelf)
    await library.check(before)


@pytest.mark.parametrize(("way", "how", "reads"), OTHER_WAYS)
async def test_who_runs_the_statement_does_not_matter(
    library: Library, way: str, how: str, reads: tuple[str, ...]
) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, reads))
    await library.change("a", f"/statements/{way}/{how}", shelf)
    await library.check(before)


async def test_a_write_is_seen_whoever_made_the_entry(library: Library) -> None:
    """B has answered from A's entry, and computed nothing itself."""
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, ["joined"]))
    await library.change("b", "/statements/rename/in a session", shelf)
    await library.check(before)


async def test_what_is_rolled_back_invalidates_nothing(library: Library) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, ["author", "joined"]))
    response = await library.post("a", "/statements/rename/rolled back", shelf)
    assert response.status_code == 409
    for process in ("b", "plain"):
        assert await library.read_all(process, before) == [*before.values()]


async def test_one_users_write_drops_the_list_of_no_other_user(library: Library) -> None:
    shelf = await library.shelf()
    before = await library.warm(f"/favourites as {shelf['user']}")
    [(path, of_other)] = (await library.warm(f"/favourites as {shelf['other_user']}")).items()
    assert of_other not in before.values()
    await library.change("a", "/in-session/like", shelf)
    answer = await library.read("b", path)
    assert answer == of_other
    # Without tags the table is all that is known of the list.
    assert answer.is_hit == (library.variant == "tags")
    await library.check(before)


@pytest.mark.parametrize("read", ["author", "joined finely", "joined"])
async def test_a_tag_is_finer_than_the_table(library: Library, read: str) -> None:
    """Who declares a tag of each table stays a hit when another author gets another name."""
    shelf, other = await library.shelf(), await library.shelf()
    before = await library.warm(*paths_of(shelf, [read]))
    [(path, of_other)] = (await library.warm(*paths_of(other, [read]))).items()
    await library.change("a", "/in-session/rename", shelf)
    answer = await library.read("b", path)
    assert answer == of_other
    assert answer.is_hit == (library.variant == "tags" and read != "joined")
    await library.check(before)
