"""The statements of an engine, told to the computations that run them."""

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine, ExecutionContext

from app.cache.reads import recording
from app.cache.sql.catalog import Catalog
from app.cache.sql.statements import effect_of


class Observer:
    """Notes what the statements of an engine read, for the computation that runs them."""

    def __init__(self, engine: Engine) -> None:
        self._catalog: Catalog | None = None
        event.listen(engine, "before_cursor_execute", self._before)

    def _before(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: ExecutionContext | None,
        _many: bool,
    ) -> None:
        reads = recording.get()
        if reads is None:
            return
        effect = effect_of(getattr(context, "compiled", None), statement)
        reads.tables |= effect.reads
        if reads.unclear is None:
            reads.unclear = self._known(connection).unclear_reads(effect)

    def _known(self, connection: Connection) -> Catalog:
        if self._catalog is None:
            self._catalog = Catalog.ask(connection)
        return self._catalog
