"""The result as Markdown, to read in a terminal and to paste where it is discussed."""

from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure
from benchmarks.goals import Goal, reached
from benchmarks.peers import SIZES, Peer, Size
from benchmarks.rounds import Measured, Ratio
from benchmarks.rows import Row

# What one expired entry costs is less.
WORTH_TELLING = 0.001

WHERE_TO_LOOK_NEXT = """\
Ratios hold from one machine to the next, figures do not. Has a ratio changed? Measure it again with
`--only PATTERN --rounds 9`, then look where the time goes: `py-spy` or `perf` on the process of
uvicorn, one row at a time. What a hit does, step by step, is in `app/cache/README.md`."""


def machine(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["## Machine", "", *(f"- {name}: {value}" for name, value in lines)])


def rows(measured: Measured, table: Sequence[Row]) -> str:
    lines = [
        (
            row.name,
            f"{measured.per_second(row.name):,.0f}",
            f"{measured.p50_ms(row.name):.2f}",
            f"{measured.p99_ms(row.name):.2f}",
            _shown(measured.ratio(row.name, row.against), row.against),
        )
        for row in table
    ]
    head = ("row", "requests/s", "p50 ms", "p99 ms", "median ratio (least–most)")
    return "\n".join([_section("Requests", head, lines), *_not_from_the_cache(measured)])


def _not_from_the_cache(measured: Measured) -> Iterator[str]:
    """Rows that are slower than they should be, as part of their answers were computed."""
    for row in measured.rows:
        if (part := measured.computed(row)) > WORTH_TELLING:
            yield (
                f"\n{part:.1%} of the answers of *{row}* did not come from the cache. This service"
                " waits 100 ms for Redis, so it had more to do than it can."
            )


def figures(found: Sequence[Figure]) -> str:
    lines = [(each.name, f"{each.value:.3g} {each.unit}".strip(), each.how) for each in found]
    return _section("Other figures", ("figure", "value", "how"), lines)


def peers(measured: Measured, found: Sequence[Peer]) -> str:
    return "\n\n".join(filter(None, (_peers_of(size, measured, found) for size in SIZES)))


def _peers_of(size: Size, measured: Measured, found: Sequence[Peer]) -> str:
    names = {size.hit: "**this cache**", size.bare: "bare ASGI, a constant"}
    names |= {peer.row(size.name): peer.title for peer in found}
    lines = []
    for row in sorted(names.keys() & measured.rows.keys(), key=measured.per_second, reverse=True):
        bare, faster = measured.ratio(row, size.bare), measured.ratio(size.hit, row)
        lines.append(
            (
                names[row],
                f"{measured.per_second(row):,.0f}",
                f"{measured.p50_ms(row):.2f}",
                f"{measured.p99_ms(row):.2f}",
                f"{bare.median:.3f}" if bare else "",
                f"{faster.median:.2f} ×" if faster and row != size.hit else "",
            )
        )
    head = ("", "requests/s", "p50 ms", "p99 ms", "× bare", "this cache is faster")
    return _section(f"Beside its peers, {size.name}", head, lines)


def goals(wanted: Sequence[Goal], measured: Measured, found: Sequence[Figure]) -> str:
    lines = []
    for goal in wanted:
        value = reached(goal, measured, found)
        if value is None:
            continue
        missed = goal.missed_by(value)
        verdict = f"missed by {missed:.0%}" if missed else "met"
        against = f" / {goal.against}" if goal.against else ""
        lines.append((f"{goal.name}{against}", goal.bound, f"{value:.2f}", verdict))
    return _section("Goals", ("ratio", "goal", "reached", ""), lines)


def _shown(ratio: Ratio | None, against: str) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.most:.2f}) × {against}"


def _section(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table under a heading; nothing when there is nothing to tell."""
    if not lines:
        return ""
    return "\n".join([f"## {title}", "", *_table(head, lines)])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned, so that it can be read where it is not rendered."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    for line in (head, rule, *lines):
        cells = (cell.ljust(max(3, width)) for cell, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
