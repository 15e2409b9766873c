"""Regions as clients receive them."""

from pydantic import BaseModel, ConfigDict


class RegionRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    countries: int
