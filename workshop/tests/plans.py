"""How PostgreSQL carries out the SQL of a request: which indexes it reads, and what it sorts."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event, text

from app.cache import invalidate
from tests.clients import Client

Node = dict[str, Any]


async def fill(client: Client, *statements: str) -> None:
    """Many rows by plain SQL, and what autovacuum does after a while: the planner knows them."""
    engine = client.state["engine"].execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        invalidate(connection, "*")
        for statement in [*statements, "VACUUM ANALYZE"]:
            await connection.execute(text(statement))


async def page_plan(client: Client, url: str) -> list[str]:
    """What is read and sorted for the rows of a response, without the count beside them."""
    (plan,) = await _plans(client, url)
    return sorted({step for node in _nodes(plan, skip="InitPlan") if (step := _step(node))})


async def total_plan(client: Client, url: str) -> list[str]:
    """The same for the count."""
    (plan,) = await _plans(client, url)
    (count,) = (
        node for node in _nodes(plan) if node.get("Subplan Name", "").startswith("InitPlan")
    )
    return sorted({step for node in _nodes(count) if (step := _step(node))})


async def _plans(client: Client, url: str) -> list[Node]:
    sent: list[tuple[str, Any]] = []

    def collect(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    engine = client.state["engine"]
    event.listen(engine.sync_engine, "before_cursor_execute", collect)
    response = await client.get(url)
    event.remove(engine.sync_engine, "before_cursor_execute", collect)
    assert response.status_code == 200, response.text
    async with engine.connect() as connection:
        # As in compose.yaml, whatever the server has.
        await connection.execute(text("SET LOCAL random_page_cost = 1.1"))
        explained = [
            await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            for statement, parameters in sent
        ]
    return [result.scalar_one()[0]["Plan"] for result in explained]


def _nodes(node: Node, skip: str | None = None) -> Iterator[Node]:
    if skip is None or not node.get("Subplan Name", "").startswith(skip):
        yield node
        for child in node.get("Plans", []):
            yield from _nodes(child, skip)


def _step(node: Node) -> str | None:
    match node["Node Type"]:
        case "Seq Scan":
            return f"all of {node['Relation Name']}"
        case "Index Scan" | "Index Only Scan" | "Bitmap Index Scan":
            name: str = node["Index Name"]
            return name
        case "Sort":
            return "sort"
        case _:
            return None
