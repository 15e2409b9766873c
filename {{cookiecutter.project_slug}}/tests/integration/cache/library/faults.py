"""Declarations that cannot be right. `python -m tests.integration.cache.library.faults` starts the
service with each of them in turn, and prints what it says."""

import asyncio
import json
import os
import sys
from collections.abc import Callable

from fastapi import FastAPI
from sqlalchemy.orm import Mapped, mapped_column

from app.cache import PolicyError, cache
from app.database import Base
from app.main import create_app


def model(tags: object) -> None:
    class Faulty(Base):
        __tablename__ = "faulty"
        __cache_tags__ = tags
        faulty_id: Mapped[int] = mapped_column(primary_key=True)


def route(app: FastAPI, **policy: list[str]) -> None:
    @app.get("/faulty/{title}")
    @cache(expire=300, **policy)  # type: ignore[arg-type]
    async def read_faulty(title: str) -> str:
        return title


def fields_of_nobody(app: FastAPI) -> None:
    model(("faulty:{faulty_id}",))
    route(app, tags=["faulty:{title}:{title}"])


FAULTS: dict[str, Callable[[FastAPI], None]] = {
    "a tag that nobody declares": lambda app: route(app, tags=["magazines"]),
    "a template with other fields": fields_of_nobody,
    "tags that are a text": lambda _: model("faulty"),
    "a column that is missing": lambda _: model(("faulty:{colour}",)),
    "a table that does not exist": lambda app: route(app, reads=["magazines"]),
}


async def start(fault: str) -> str:
    app = create_app()
    FAULTS[fault](app)
    try:
        async with app.router.lifespan_context(app):
            return "it started"
    except PolicyError as error:
        return str(error)


if __name__ == "__main__":
    for fault in FAULTS:
        if os.fork() == 0:  # models stay where they are declared
            sys.stdout.write(json.dumps([fault, asyncio.run(start(fault))]) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.wait()
