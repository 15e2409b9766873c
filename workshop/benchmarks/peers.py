"""Other ways to serve the same list, each in a Python environment of its own.

A folder given as `--peers` holds one folder for each: an `app.py` with an ASGI `app`, the
`requirements.txt` it was installed from, and the environment in `.venv`. What it is called is the
first line of the docstring of `app.py`. It finds Redis in CACHE_URL and the countries in BODIES.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import BARE_20, BARE_249, LIST_20, LIST_249, Proof, Row
from benchmarks.targets import Target

COMPUTED = "/computed"
PINNED = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Peer:
    title: str
    package: str
    """The first pinned requirement, and its version; empty when it has none."""
    target: Target

    def row(self, size: str) -> str:
        return f"{self.title}, {size}"


@dataclass(frozen=True, slots=True)
class Size:
    """How long the list is; `hit` is the row of this service, `bare` that of the limit."""

    name: str
    hit: str
    bare: str


SIZES = (
    Size("20 items", "hit, 20 items", BARE_20),
    Size("249 items", "hit, 249 items", BARE_249),
)


def find_peers(folder: Path) -> list[Peer]:
    return [_read(app) for app in sorted(folder.glob("*/app.py"))]


def peer_rows(peers: Sequence[Peer]) -> Iterator[Row]:
    for size, traffic, sample in zip(SIZES, (LIST_20, LIST_249), ("20", "249"), strict=True):
        for peer in peers:
            counter = COMPUTED if COMPUTED in (peer.target.folder / "app.py").read_text() else ""
            proof = Proof(body=sample, counter=counter)
            yield Row(peer.row(size.name), peer.target, traffic, proof, size.bare)


def _read(app: Path) -> Peer:
    folder = app.parent.resolve()
    docstring = ast.get_docstring(ast.parse(app.read_text(encoding="utf-8"))) or folder.name
    pinned = PINNED.search((folder / "requirements.txt").read_text(encoding="utf-8"))
    target = Target(
        folder.name,
        "app:app",
        # What peers have in common lies beside them.
        environment={"PYTHONPATH": str(folder.parent)},
        python=str(folder / ".venv/bin/python"),
        folder=folder,
    )
    return Peer(docstring.splitlines()[0], " ".join(pinned.groups()) if pinned else "", target)
