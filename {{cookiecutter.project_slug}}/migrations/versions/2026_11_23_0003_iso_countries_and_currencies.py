"""The countries of ISO 3166-1 and the currencies of ISO 4217, from `migrations/data/`.

Tables are described here as this migration needs them: the models of the service move on.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

DATA = Path(__file__).parents[1] / "data"

currencies = sa.table(
    "currencies",
    sa.column("code", sa.CHAR(3)),
    sa.column("numeric", sa.CHAR(3)),
    sa.column("name", sa.String()),
    sa.column("minor_units", sa.SmallInteger()),
)
countries = sa.table(
    "countries",
    *(sa.column(name, sa.String()) for name in ("alpha_2", "alpha_3", "numeric", "name")),
    *(sa.column(name, sa.String()) for name in ("official_name", "region", "subregion")),
)
country_currencies = sa.table(
    "country_currencies",
    sa.column("country_alpha_2", sa.CHAR(2)),
    sa.column("currency_code", sa.CHAR(3)),
)


def upgrade() -> None:
    op.bulk_insert(
        currencies,
        [
            row | {"minor_units": int(units) if (units := row["minor_units"]) else None}
            for row in read("currencies.csv")
        ],
    )
    uses = []
    rows = read("countries.csv")
    for row in rows:
        codes = (row.pop("currencies") or "").split()
        uses += [{"country_alpha_2": row["alpha_2"], "currency_code": code} for code in codes]
    op.bulk_insert(countries, rows)
    op.bulk_insert(country_currencies, uses)


def downgrade() -> None:
    loaded = [row["alpha_2"] for row in read("countries.csv")]
    op.execute(countries.delete().where(countries.c.alpha_2.in_(loaded)))
    # What was added since keeps its currencies.
    used = sa.select(country_currencies.c.currency_code)
    loaded = [row["code"] for row in read("currencies.csv")]
    op.execute(
        currencies.delete().where(currencies.c.code.in_(loaded), currencies.c.code.not_in(used))
    )


def read(name: str) -> list[dict[str, str | None]]:
    """The rows of a file; an empty field is None."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
