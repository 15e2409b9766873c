"""COMMITs in doubt: when one has been sent and no answer came, PostgreSQL alone knows its outcome.

Nothing is asked ahead of a COMMIT, which would cost every write. What is in doubt was begun before
the first question, so it has ended, whichever way, when no transaction is left that is older. That
holds through a pooler and after a failover, where process ids mean nothing; a long transaction of
somebody else makes it take longer.
"""

from sqlalchemy import Engine, text
from sqlalchemy.util import greenlet_spawn

# Given in reply to COMMIT these leave open what became of it: connection exceptions, operator
# intervention, system and internal errors.
_UNANSWERED_CLASSES = ("08", "57", "58", "XX")
_COMPLETION_UNKNOWN = "40003"

# Only a primary gives out numbers; the one given here is above those of all that was begun before.
_NEXT = text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
_OLDEST = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL has answered COMMIT with an error, so that it is rolled back for sure."""
    state = getattr(error, "sqlstate", None)
    return (
        isinstance(state, str)
        and state[:2] not in _UNANSWERED_CLASSES
        and state != _COMPLETION_UNKNOWN
    )


class Doubt:
    """About a COMMIT that was sent through `engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next: int | None = None

    async def is_over(self) -> bool:
        """Whether the transaction has ended. Raises what the database or its driver raise."""
        return await greenlet_spawn(self._ask)

    def _ask(self) -> bool:
        # A connection of its own: those of the pool may all be waiting, for their COMMITs too.
        engine = Engine(self._engine.pool.recreate(), self._engine.dialect, self._engine.url)
        try:
            with engine.connect() as connection:
                if self._next is None:
                    self._next = connection.scalar(_NEXT)
                    connection.rollback()
                oldest: int = connection.scalar(_OLDEST)
                return oldest >= self._next
        finally:
            engine.dispose()
