"""Triggers that tell the cache whenever a statement changes one of the example's tables.

Optional, for `CACHE_LISTEN=true`: move this file to migrations/versions/, and let `down_revision`
name the newest revision there. Transactions that notify commit one after the other.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("countries", "country_currencies", "currencies")


def upgrade() -> None:
    for table in TABLES:
        op.execute(
            f"""
            CREATE TRIGGER notify_cache_tags
            AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
            EXECUTE FUNCTION notify_cache_tags()
            """
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER notify_cache_tags ON {table}")
