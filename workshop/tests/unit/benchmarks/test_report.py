"""Ratios are taken round by round, goals are judged by them, and the output is well-formed."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.chart import Bars, bars, svg
from benchmarks.figures import Figure
from benchmarks.goals import Goal, reached, read_goals
from benchmarks.load import Result
from benchmarks.peers import Peer, find_peers, peer_rows
from benchmarks.rounds import Measured
from benchmarks.rows import ROWS


def results(*per_second: float) -> list[Result]:
    return [Result(1000, value, 1.0, 2.0) for value in per_second]


def measured(**rows: list[Result]) -> Measured:
    return Measured({name.replace("_", " "): each for name, each in rows.items()})


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    # In the second round everything was slow; a ratio of medians would say 0.5.
    ratio = measured(hit=results(60, 30, 20), bare=results(100, 40, 80)).ratio("hit", "bare")
    assert ratio
    assert (ratio.median, ratio.least, ratio.most) == (0.6, 0.25, 0.75)


def test_there_is_no_ratio_to_what_was_not_measured() -> None:
    assert measured(hit=results(1)).ratio("hit", "bare") is None
    assert measured(hit=results(1)).ratio("hit", "") is None


@pytest.mark.parametrize(
    ("goal", "value", "missed"),
    [
        (Goal("hit", "bare", at_least=0.5), 0.6, 0),
        (Goal("hit", "bare", at_least=0.8), 0.6, 0.25),
        (Goal("large", "small", at_most=2), 2.0, 0),
        (Goal("large", "small", at_most=1.6), 2.0, 0.25),
        (Goal("small", at_most=5), 5.0, 0),
    ],
)
def test_a_goal_says_by_how_much_it_is_missed(goal: Goal, value: float, missed: float) -> None:
    figures = [Figure("small", 5, "ms", ""), Figure("large", 10, "ms", "")]
    rows = measured(hit=results(60, 30, 20), bare=results(100, 40, 80))
    assert reached(goal, rows, figures) == value
    assert goal.missed_by(value) == pytest.approx(missed)


def test_a_goal_without_a_measurement_is_neither_met_nor_missed() -> None:
    assert reached(Goal("large", "small", at_most=1), Measured({}), []) is None
    assert report.goals([Goal("large", at_most=1)], Measured({}), []) == ""


def test_goals_are_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "goals.toml"
    file.write_text('[[goal]]\nname = "hit"\nagainst = "bare"\nat_least = 0.6\n')
    assert read_goals(file) == [Goal("hit", "bare", at_least=0.6)]


def test_a_peer_is_a_folder(tmp_path: Path) -> None:
    peer = make_peer(tmp_path)
    assert (peer.title, peer.package) == ("some-cache & co", "some-cache 1.2.3")
    rows = list(peer_rows([peer]))
    assert [row.name for row in rows] == ["some-cache & co, 20 items", "some-cache & co, 249 items"]
    assert {row.against for row in rows} <= {row.name for row in ROWS}
    assert {row.proof.counter for row in rows} == {"/computed"}


def test_peers_are_ordered_by_what_they_achieve(tmp_path: Path) -> None:
    peer = make_peer(tmp_path)
    rows = with_peer(peer, hit=20_000, bare=30_000, other=5_000)
    shown = report.peers(rows, [peer])
    fastest, ours, slowest = shown.splitlines()[4:7]
    assert "bare ASGI" in fastest
    assert "**this cache**" in ours
    assert "| 4.00 × " in slowest


def test_rows_that_were_not_answered_from_the_cache_are_named() -> None:
    busy = [Result(1000, 60, 1.0, 2.0, computed=50), Result(3000, 60, 1.0, 2.0, computed=0)]
    rows = Measured({"busy": busy, "calm": results(100)})
    assert rows.computed("busy") == 0.0125
    shown = report.rows(rows, [])
    assert "1.2% of the answers of *busy*" in shown
    assert "calm" not in shown


def test_the_chart_is_well_formed_and_names_everything(tmp_path: Path) -> None:
    peer = make_peer(tmp_path)
    groups = bars(with_peer(peer, hit=20_000, bare=30_000, other=5_000), [peer])
    chart = ElementTree.fromstring(svg("A < B & C", groups, ["a caption " * 40]))

    text = "".join(chart.itertext())
    assert [group.label for group in groups] == [
        "bare ASGI, a constant",
        "this cache",
        "some-cache & co",
    ]
    assert all(group.label in text for group in groups)
    assert "20,000" in text
    lengths = [float(rect.get("width", "0")) for rect in chart.findall("{*}rect")]
    assert max(lengths) <= float(chart.get("viewBox", "").split()[2])


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert ElementTree.fromstring(svg("nothing", list[Bars](), [])).tag.endswith("svg")


def make_peer(folder: Path) -> Peer:
    own = folder / "some-cache"
    own.mkdir()
    (own / "app.py").write_text('"""some-cache & co\n\nAs it is."""\n# it serves /computed too\n')
    (own / "requirements.txt").write_text("# pinned\nsome-cache[redis]==1.2.3\nother==1\n")
    (peer,) = find_peers(folder)
    return peer


def with_peer(peer: Peer, *, hit: float, bare: float, other: float) -> Measured:
    values = {"hit": hit, "bare": bare, peer.title: other}
    sizes = ("20 items", "249 items")
    return Measured(
        {f"{name}, {size}": results(value) for name, value in values.items() for size in sizes}
    )
