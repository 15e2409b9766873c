"""Currencies as clients send and receive them."""

from typing import Annotated

from pydantic import MISSING, BaseModel, ConfigDict, Field, StringConstraints

from app.listing import SortedQuery, SortText, sortable
from app.types import Text

CurrencyCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["EUR"])]
Numeric = Annotated[str, StringConstraints(pattern=r"^[0-9]{3}$"), Field(examples=["978"])]
MinorUnits = Annotated[int, Field(ge=0, le=9, examples=[2])]


class CurrencyQuery(SortedQuery):
    minor_units: MinorUnits | None = None
    q: Text | None = Field(default=None, description="A part of the name, in any case.")
    sort: Annotated[SortText, sortable("code", "numeric", "name", "minor_units")] = "code"


class CurrencyRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    code: str
    numeric: str
    name: str
    minor_units: int | None


class CurrencyCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: CurrencyCode
    numeric: Numeric
    name: Text
    minor_units: MinorUnits | None = None


class CurrencyUpdate(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    numeric: Numeric | MISSING = MISSING
    name: Text | MISSING = MISSING
    minor_units: MinorUnits | None | MISSING = MISSING
