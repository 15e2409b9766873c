"""`python -m benchmarks`: measures, and prints Markdown to standard output."""

import argparse
import logging
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devtools import DevtoolsError

from benchmarks import chart, machine, report
from benchmarks.client import LoadError
from benchmarks.figures import FIGURES, Figure
from benchmarks.goals import read_goals
from benchmarks.load import Generator, find_generator
from benchmarks.peers import Peer, find_peers, peer_rows
from benchmarks.rounds import Measured, Plan, measure
from benchmarks.rows import ROWS, Row
from benchmarks.targets import Cores, Servers, data_servers

CHART_TITLE = "GET /countries from the cache: requests per second of one worker (more is better)"


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    # Importing the application turned its log on.
    logging.getLogger().setLevel(logging.WARNING)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
            data_servers(Path(folder), Cores.available()) as servers,
        ):
            _run(options, servers, find_generator())
    except (LoadError, DevtoolsError) as error:
        sys.stderr.write(f"{error}\nNothing was measured that is worth reading.\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: argparse.Namespace, servers: Servers, generator: Generator) -> None:
    peers = find_peers(options.peers) if options.peers else []
    rows = choose_rows([*ROWS, *peer_rows(peers)], options.only)
    described = machine.describe(servers, generator, peers)
    _print(report.machine(described))
    measured = Measured({})
    if rows:
        measured = measure(servers, generator, rows, Plan(options.rounds, options.seconds, _say))
        _print(report.rows(measured, [row for row in rows if row in ROWS]))
    if peers:
        _print(report.peers(measured, peers))
    figures = _figures(servers, options.only)
    _print(report.figures(figures))
    if options.goals:
        _print(report.goals(read_goals(options.goals), measured, figures))
    # A chart of a part would look like the whole.
    if options.svg and not options.only:
        _write_chart(options.svg, measured, peers, described)
    _print(report.WHERE_TO_LOOK_NEXT)


def choose_rows(rows: Sequence[Row], pattern: str) -> list[Row]:
    """Those that match, and those that they are set against; in the order of the table."""
    chosen = [row for row in rows if re.search(pattern, row.name)]
    names = {name for row in chosen for name in (row.name, row.against)}
    return [row for row in rows if row.name in names]


def _figures(servers: Servers, pattern: str) -> list[Figure]:
    found: list[Figure] = []
    for name, figure in FIGURES.items():
        if re.search(pattern, name):
            _say(name)
            found += figure(servers)
    return found


def _write_chart(
    file: Path, measured: Measured, peers: Sequence[Peer], described: Sequence[tuple[str, str]]
) -> None:
    wanted = (
        "date",
        "processor",
        "system",
        "Python",
        "packages",
        "Redis client",
        "Redis",
        "load generator",
        "peers",
    )
    values = dict(described)
    caption = " · ".join(values[name] for name in wanted if name in values)
    caption = f"32 connections, cache in Redis on the same machine. {caption}"
    file.write_text(chart.svg(CHART_TITLE, chart.bars(measured, peers), [caption]), "utf-8")


def _print(section: str) -> None:
    if section:
        sys.stdout.write(f"{section}\n\n")
        sys.stdout.flush()


def _say(text: str) -> None:
    """On standard error: what is pasted is the result alone."""
    sys.stderr.write(f"{text} …\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=2,
        metavar="N",
        help="for each row and round, default: 2",
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="rows and figures whose name matches"
    )
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="others to measure beside it")
    parser.add_argument("--goals", type=Path, metavar="FILE", help="ratios that are wanted, TOML")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart of a whole run")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
