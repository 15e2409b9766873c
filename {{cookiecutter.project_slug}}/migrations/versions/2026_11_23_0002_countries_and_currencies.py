"""Countries and currencies."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "currencies",
        sa.Column("code", sa.CHAR(3), nullable=False),
        sa.Column("numeric", sa.CHAR(3), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("minor_units", sa.SmallInteger()),
        *versioned(),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_currencies")),
        sa.UniqueConstraint("numeric", name=op.f("uq_currencies_numeric")),
        sa.CheckConstraint("code ~ '^[A-Z]{3}$'", name=op.f("ck_currencies_code_shape")),
        sa.CheckConstraint("numeric ~ '^[0-9]{3}$'", name=op.f("ck_currencies_numeric_shape")),
        sa.CheckConstraint(
            "minor_units BETWEEN 0 AND 9", name=op.f("ck_currencies_minor_units_range")
        ),
    )
    op.create_index(op.f("ix_currencies_minor_units_code"), "currencies", ["minor_units", "code"])
    op.create_table(
        "countries",
        sa.Column("alpha_2", sa.CHAR(2), nullable=False),
        sa.Column("alpha_3", sa.CHAR(3), nullable=False),
        sa.Column("numeric", sa.CHAR(3), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("official_name", sa.String(200)),
        sa.Column("region", sa.String(200)),
        sa.Column("subregion", sa.String(200)),
        *versioned(),
        sa.PrimaryKeyConstraint("alpha_2", name=op.f("pk_countries")),
        sa.UniqueConstraint("alpha_3", name=op.f("uq_countries_alpha_3")),
        sa.UniqueConstraint("numeric", name=op.f("uq_countries_numeric")),
        sa.UniqueConstraint("name", name=op.f("uq_countries_name")),
        sa.CheckConstraint("alpha_2 ~ '^[A-Z]{2}$'", name=op.f("ck_countries_alpha_2_shape")),
        sa.CheckConstraint("alpha_3 ~ '^[A-Z]{3}$'", name=op.f("ck_countries_alpha_3_shape")),
        sa.CheckConstraint("numeric ~ '^[0-9]{3}$'", name=op.f("ck_countries_numeric_shape")),
    )
    op.create_index(op.f("ix_countries_region_name"), "countries", ["region", "name"])
    op.create_index(op.f("ix_countries_subregion_name"), "countries", ["subregion", "name"])
    op.create_table(
        "country_currencies",
        sa.Column("country_alpha_2", sa.CHAR(2), nullable=False),
        sa.Column("currency_code", sa.CHAR(3), nullable=False),
        sa.PrimaryKeyConstraint(
            "country_alpha_2", "currency_code", name=op.f("pk_country_currencies")
        ),
        sa.ForeignKeyConstraint(
            ["country_alpha_2"],
            ["countries.alpha_2"],
            name=op.f("fk_country_currencies_country_alpha_2_countries"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["currency_code"],
            ["currencies.code"],
            name=op.f("fk_country_currencies_currency_code_currencies"),
            ondelete="RESTRICT",
        ),
    )
    op.create_index(
        op.f("ix_country_currencies_currency_code"), "country_currencies", ["currency_code"]
    )


def downgrade() -> None:
    op.drop_table("country_currencies")
    op.drop_table("countries")
    op.drop_table("currencies")


def versioned() -> list[sa.Column[object]]:
    return [
        sa.Column(
            "version", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
    ]
