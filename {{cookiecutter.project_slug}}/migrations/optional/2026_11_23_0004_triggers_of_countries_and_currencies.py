"""Triggers that NOTIFY the tags of the example's tables whenever a statement changes them.

Optional, for `CACHE_LISTEN=true`: move this file to migrations/versions/, and let `down_revision`
name the newest revision there. Transactions that notify commit one after the other. The arguments
of a trigger are what `__cache_tags__` of the model names, with `*` for a placeholder: a statement
does not say which rows it touched.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TAGS = {
    "countries": "'countries', 'country:*'",
    "country_currencies": "'countries', 'country:*'",
    "currencies": "'currencies', 'currency:*'",
}


def upgrade() -> None:
    for table, tags in TAGS.items():
        op.execute(
            f"""
            CREATE TRIGGER notify_cache_tags
            AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION notify_cache_tags({tags})
            """
        )


def downgrade() -> None:
    for table in TAGS:
        op.execute(f"DROP TRIGGER notify_cache_tags ON {table}")
