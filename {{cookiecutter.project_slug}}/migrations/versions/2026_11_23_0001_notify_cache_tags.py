"""notify_cache_tags(), for triggers that tell the cache what other programs write.

It costs nothing until a trigger calls it; README.md, "Writes that bypass the service", says when to
make one. It tells of the table; the arguments of a trigger, if any, are tags that end as well.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION notify_cache_tags() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('cache_tags', 'table:' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
            FOR i IN 0 .. TG_NARGS - 1 LOOP
                PERFORM pg_notify('cache_tags', TG_ARGV[i]);
            END LOOP;
            RETURN NULL;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION notify_cache_tags()")
