"""What the library is asked for, by name; `paths_of` makes it one test's own."""

from collections.abc import Iterable
from typing import Any

READS = {
    "author": "/authors/{author_id}",
    "columns": "/authors/{author_id}/name",
    "joined": "/authors/{author_id}/books",
    "joined finely": "/authors/{author_id}/books-and-name",
    "filtered": "/books?author_id={author_id}",
    "unfiltered": "/books",
    "joinedload": "/books/{book_id}",
    "selectinload": "/authors/{author_id}/shelf",
    "ordered": "/authors/{author_id}/ordered",
    "genre used": "/genres/{slug}/used",
    "sold": "/books/{book_id}/sold",
    "reviewed": "/authors/{author_id}/reviewed",
    "best": "/authors/{author_id}/best",
    "words": "/authors/{author_id}/words",
    "genres": "/books/{book_id}/genres",
    "statistic": "/authors/{author_id}/statistic",
    "stock": "/books/{book_id}/stock",
    "review": "/reviews/{review_id}",
    "orders": "/orders as {user}",
    "favourites": "/favourites as {user}",
    "by connection": "/authors/{author_id}/by-connection",
    "function": "/authors/{author_id}/summary",
    "two levels": "/authors/{author_id}/report",
    "shared function": "/books/{book_id}/card",
    "text, told": "/authors/{author_id}/text-told",
    "text": "/authors/{author_id}/text",
    "text in a column": "/authors/{author_id}/fragment",
    "from text": "/authors/{author_id}/from-text",
    "text in a function": "/authors/{author_id}/text-in-function",
    "view": "/authors/{author_id}/view",
    "database function": "/authors/{author_id}/database-function",
}
# Whose tables nobody has told the cache about, and why they cannot be found out.
UNCACHED = {
    "text": "textual-sql",
    "text in a column": "textual-sql",
    "from text": "textual-sql",
    "text in a function": "function-not-stored",
    "view": "view",
    "database function": "function",
}


def paths_of(shelf: dict[str, Any], reads: Iterable[str]) -> list[str]:
    return [READS[read].format(**shelf) for read in reads]
