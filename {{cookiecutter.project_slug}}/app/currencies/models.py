"""Currencies, as ISO 4217 has them."""

from sqlalchemy import CHAR, CheckConstraint, Index, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, Versioned


class Currency(Versioned, Base):
    __tablename__ = "currencies"
    __table_args__ = (
        CheckConstraint("code ~ '^[A-Z]{3}$'", name="code_shape"),
        CheckConstraint("numeric ~ '^[0-9]{3}$'", name="numeric_shape"),
        CheckConstraint("minor_units BETWEEN 0 AND 9", name="minor_units_range"),
        # A filter and the default order in one: a page is read from it without sorting.
        Index(None, "minor_units", "code"),
    )
    __cache_tags__ = ("currencies", "currency:{code}")

    code: Mapped[str] = mapped_column(CHAR(3), primary_key=True)
    numeric: Mapped[str] = mapped_column(CHAR(3), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    minor_units: Mapped[int | None] = mapped_column(SmallInteger)
