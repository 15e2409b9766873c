"""Countries, as ISO 3166-1 has them, with the regions of UN M49 and their currencies."""

from sqlalchemy import (
    ARRAY,
    CHAR,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    Table,
    func,
    select,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.currencies.models import Currency
from app.database import Base, Versioned

country_currencies = Table(
    "country_currencies",
    Base.metadata,
    Column(
        "country_alpha_2",
        ForeignKey("countries.alpha_2", ondelete="CASCADE"),
        primary_key=True,
    ),
    # The primary key finds the currencies of a country, this index the countries of a currency.
    Column(
        "currency_code",
        ForeignKey("currencies.code", ondelete="RESTRICT"),
        primary_key=True,
        index=True,
    ),
    info={"cache_tags": ("countries", "country:{country_alpha_2}")},
)


class Country(Versioned, Base):
    __tablename__ = "countries"
    __table_args__ = (
        CheckConstraint("alpha_2 ~ '^[A-Z]{2}$'", name="alpha_2_shape"),
        CheckConstraint("alpha_3 ~ '^[A-Z]{3}$'", name="alpha_3_shape"),
        CheckConstraint("numeric ~ '^[0-9]{3}$'", name="numeric_shape"),
        # A filter and the default order in one: a page is read from it without sorting.
        Index(None, "region", "name"),
        Index(None, "subregion", "name"),
    )
    __cache_tags__ = ("countries", "country:{alpha_2}")

    alpha_2: Mapped[str] = mapped_column(CHAR(2), primary_key=True)
    alpha_3: Mapped[str] = mapped_column(CHAR(3), unique=True)
    numeric: Mapped[str] = mapped_column(CHAR(3), unique=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    official_name: Mapped[str | None] = mapped_column(String(200))
    region: Mapped[str | None] = mapped_column(String(200))
    subregion: Mapped[str | None] = mapped_column(String(200))

    currencies: Mapped[list[Currency]] = relationship(
        secondary=country_currencies,
        order_by=Currency.code,
        lazy="raise",
        passive_deletes=True,
    )

    @hybrid_property
    def currency_codes(self) -> list[str]:
        return [currency.code for currency in self.currencies]

    @currency_codes.inplace.expression
    @classmethod
    def _currency_codes(cls) -> ColumnElement[list[str]]:
        """In the statement that selects the country: a list needs no second one for them."""
        # Rows that OFFSET skips have theirs looked up too, at 2 µs each.
        codes = (
            select(country_currencies.c.currency_code)
            .where(country_currencies.c.country_alpha_2 == cls.alpha_2)
            .order_by(country_currencies.c.currency_code)
        )
        return func.array(codes.scalar_subquery(), type_=ARRAY(String))
