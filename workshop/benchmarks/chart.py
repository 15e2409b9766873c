"""A bar chart as SVG: requests per second of everything that serves the list, for both sizes.

The colours are in the middle, so that it can be read on a light and on a dark page.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape, quoteattr

from benchmarks.peers import SIZES, Peer
from benchmarks.rounds import Measured

WIDTH_PX, LEFT_PX, RIGHT_PX = 840, 280, 90
TOP_PX, BAR_PX, GAP_PX, LINE_PX = 64, 11, 14, 17
CAPTION_CHARS = 120
TEXT, MUTED = "#6e7781", "#848d97"
OURS, OTHERS = ("#1f9d78", "#6cc3a8"), ("#5b7fb0", "#9db4d3")
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\""


@dataclass(frozen=True, slots=True)
class Bars:
    label: str
    ours: bool
    per_second: tuple[float, ...]
    """One for each size."""


def bars(measured: Measured, peers: Sequence[Peer]) -> list[Bars]:
    """What was measured in both sizes, the fastest first."""
    named = {
        "bare ASGI, a constant": [size.bare for size in SIZES],
        "this cache": [size.hit for size in SIZES],
        **{peer.title: [peer.row(size.name) for size in SIZES] for peer in peers},
    }
    found = [
        Bars(label, label == "this cache", tuple(measured.per_second(row) for row in rows))
        for label, rows in named.items()
        if all(row in measured.rows for row in rows)
    ]
    return sorted(found, key=lambda each: each.per_second, reverse=True)


def svg(title: str, groups: Sequence[Bars], caption: Sequence[str]) -> str:
    lines = [part for text in caption for part in wrap(text, CAPTION_CHARS)]
    bottom = TOP_PX + len(groups) * (len(SIZES) * BAR_PX + GAP_PX)
    height = bottom + len(lines) * LINE_PX + GAP_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" {FONT}'
        f' font-size="13" fill="{TEXT}" role="img" aria-label={quoteattr(title)}>',
        f'<text x="0" y="20" font-size="17" font-weight="600">{escape(title)}</text>',
        *_legend(),
        *_groups(groups),
    ]
    for number, line in enumerate(lines, 1):
        y = bottom + number * LINE_PX
        parts.append(f'<text x="0" y="{y}" font-size="11" fill="{MUTED}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> Iterator[str]:
    for number, size in enumerate(SIZES):
        x = LEFT_PX + number * 100
        yield f'<rect x="{x}" y="36" width="{BAR_PX}" height="{BAR_PX}" fill="{OTHERS[number]}"/>'
        yield f'<text x="{x + BAR_PX + 5}" y="46" font-size="12">{size.name}</text>'


def _groups(groups: Sequence[Bars]) -> Iterator[str]:
    longest = max((value for group in groups for value in group.per_second), default=1)
    scale = (WIDTH_PX - LEFT_PX - RIGHT_PX) / longest
    y = TOP_PX
    for group in groups:
        weight = ' font-weight="600"' if group.ours else ""
        middle = y + BAR_PX + 4
        yield (
            f'<text x="{LEFT_PX - 10}" y="{middle}" text-anchor="end"{weight}>'
            f"{escape(group.label)}</text>"
        )
        for value, colour in zip(group.per_second, OURS if group.ours else OTHERS, strict=True):
            width = max(1.0, value * scale)
            yield (
                f'<rect x="{LEFT_PX}" y="{y}" width="{width:.1f}" height="{BAR_PX - 1}"'
                f' fill="{colour}"/>'
            )
            x = LEFT_PX + width + 6
            yield f'<text x="{x:.1f}" y="{y + 9}" font-size="11">{value:,.0f}</text>'
            y += BAR_PX
        y += GAP_PX
