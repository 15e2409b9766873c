"""Declarations that cannot be right are found when the service starts, and named."""

import json

import pytest

from app.settings import Settings
from tests.integration.cache.library.client import Variant
from tests.integration.cache.library.conftest import VARIANTS
from tests.integration.cache.library.programs import run

# The fault, and what its message must name.
FAULTS = {
    "a tag that nobody declares": ("GET /faulty/{title}", "magazines"),
    "a template with other fields": ("GET /faulty/{title}", "'faulty:{faulty_id}'"),
    "tags that are a text": ("Faulty", "__cache_tags__", "'faulty'"),
    "a column that is missing": ("Faulty", "colour"),
    "a table that does not exist": ("GET /faulty/{title}", "magazines"),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_it_does_not_start(settings: Settings, variant: Variant) -> None:
    environment = {
        "DATABASE_URL": settings.database_url,
        "CACHE_URL": settings.cache_url,
        **VARIANTS[variant],
    }
    said = dict(json.loads(line) for line in await run("faults", environment))
    assert said.keys() == FAULTS.keys()
    for fault, words in FAULTS.items():
        assert [word for word in words if word not in said[fault]] == [], said[fault]
