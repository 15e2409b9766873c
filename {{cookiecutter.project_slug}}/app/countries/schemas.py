"""Countries as clients send and receive them. Currencies are given by their codes."""

from typing import Annotated

from pydantic import MISSING, BaseModel, ConfigDict, Field, StringConstraints

from app.currencies.schemas import CurrencyCode
from app.listing import SortedQuery, SortText, sortable
from app.types import Text

Alpha2 = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$"), Field(examples=["AT"])]
Alpha3 = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["AUT"])]
Numeric = Annotated[str, StringConstraints(pattern=r"^[0-9]{3}$"), Field(examples=["040"])]
CurrencyCodes = Annotated[set[CurrencyCode], Field(max_length=20)]


class CountryQuery(SortedQuery):
    region: Text | None = None
    subregion: Text | None = None
    currency: CurrencyCode | None = None
    q: Text | None = Field(
        default=None, description="A part of the name or of the official name, in any case."
    )
    sort: Annotated[
        SortText, sortable("alpha_2", "alpha_3", "numeric", "name", "region", "subregion")
    ] = "name"


class CountryRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    alpha_2: str
    alpha_3: str
    numeric: str
    name: str
    official_name: str | None
    region: str | None
    subregion: str | None
    currencies: list[str] = Field(validation_alias="currency_codes")


class CountryCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    alpha_2: Alpha2
    alpha_3: Alpha3
    numeric: Numeric
    name: Text
    official_name: Text | None = None
    region: Text | None = None
    subregion: Text | None = None
    currencies: CurrencyCodes = set()


class CountryUpdate(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    alpha_3: Alpha3 | MISSING = MISSING
    numeric: Numeric | MISSING = MISSING
    name: Text | MISSING = MISSING
    official_name: Text | None | MISSING = MISSING
    region: Text | None | MISSING = MISSING
    subregion: Text | None | MISSING = MISSING
    currencies: CurrencyCodes | MISSING = MISSING
