import xml.etree.ElementTree as ET
from itertools import pairwise

from markupsafe import Markup

from laion_etl.report import charts
from laion_etl.report.charts import Axis, Hexagon, Marker, Strip, linear, logarithmic
from laion_etl.report.sankey import HEIGHT, Flow, Step, sankey

SVG = "{http://www.w3.org/2000/svg}"


def axis(bins: int) -> Axis:
    return Axis(range(bins + 1), [(0, "0"), (bins, str(bins))], "units", lambda index: f"bin {index}")


def texts(drawing: Markup) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(str(drawing)).iter(f"{SVG}text")]  # noqa: S314


def shapes(drawing: Markup, name: str, tag: str = "rect") -> list[dict[str, str]]:
    found = ET.fromstring(str(drawing)).iter(SVG + tag)  # noqa: S314 - drawn by us
    return [node.attrib for node in found if node.attrib["class"] == name]


def test_the_funnel_shows_every_stage_and_sums_up_rare_reasons() -> None:
    reasons = [Flow(f"reason {i}", 10 - i, "lost") for i in range(8)]
    others = [Flow("opted out", 1, "opted-out")]
    steps = [
        Step("parse", "Links", 1052, 1000, [*reasons, *others]),
        Step("load", "Pairs", 1000, 400, [Flow("old", 600, "duplicate")]),
    ]
    shown = texts(sankey(steps, "Published", [Flow("English", 400, "flow-kept")]))
    for expected in (
        "Links",
        "1,052",
        "reason 0",
        "10",
        "4 more reasons",
        "18",
        "Published",
        "400",
        "English",
    ):
        assert expected in shown
    assert "reason 5" not in shown
    assert "opted out" in shown, "a small reason of a kind of its own is never summed up"
    assert "38.0%" in shown, "shares are of all that came in"


def test_bands_of_the_funnel_are_as_thick_as_their_counts() -> None:
    steps = [
        Step("parse", "Links", 1000, 250, [Flow("a", 500, "lost"), Flow("b", 250, "lost")]),
        Step("load", "Pairs", 250, 250, []),
    ]
    drawing = sankey(steps, "End", [])
    assert [float(node["height"]) for node in shapes(drawing, "node")] == [HEIGHT, HEIGHT / 4, HEIGHT / 4]
    assert [float(sink["height"]) for sink in shapes(drawing, "sink lost")] == [HEIGHT / 2, HEIGHT / 4]
    assert len(shapes(drawing, "band lost", "path")) == 2


def test_reasons_of_the_funnel_do_not_overlap() -> None:
    flows = [Flow(f"reason {i}", count, "lost") for i, count in enumerate((400, 90, 5, 3, 1, 1))]
    sinks = shapes(sankey([Step("parse", "Links", 1000, 500, flows)], "End", []), "sink lost")
    edges = [(float(sink["y"]), float(sink["y"]) + float(sink["height"])) for sink in sinks]
    assert all(end < start for (_, end), (start, _) in pairwise(edges))


def test_a_funnel_of_nothing_can_be_drawn() -> None:
    assert texts(sankey([], "", [])) == ["", "0", ""]
    assert not shapes(sankey([Step("parse", "Links", 0, 0, [])], "End", []), "band flow-kept")


def test_columns_of_a_histogram_stack_to_the_tallest() -> None:
    drawing = charts.histogram(axis(2), [("kept", [3, 1]), ("rejected", [1, 0])], [], "t")
    kept, rejected = shapes(drawing, "kept")[1:], shapes(drawing, "rejected")[1:]  # the legend comes first
    assert [float(rect["height"]) for rect in kept] == [157.5, 52.5]
    assert float(rejected[0]["y"]) + float(rejected[0]["height"]) == float(kept[0]["y"])
    assert kept[0]["data-tip"] == "bin 0: 3 kept (60.00%)"
    assert {"kept 4", "rejected 1", "4", "units"} <= set(texts(drawing))


def test_logarithmic_columns_keep_rare_values_visible_and_their_order() -> None:
    heights = [logarithmic(count, 1_000_000) for count in (0, 1, 1_000, 1_000_000)]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (0.0, 1.0)
    assert heights[1] > 100 * linear(1, 1_000_000)
    drawing = charts.histogram(axis(2), [("kept", [1_000, 1])], [], "t", logarithmic)
    assert {"0", "1", "10", "100", "1,000"} <= set(texts(drawing))


def test_labels_and_titles_are_escaped() -> None:
    drawing = charts.histogram(axis(1), [("kept", [1])], [Marker(0.5, "<b>&")], 'a "title" <i>')
    assert "<b>&" in texts(drawing)
    assert ET.fromstring(str(drawing)).attrib["aria-label"] == 'a "title" <i>'  # noqa: S314
    strips = charts.strips(axis(1), [Strip('"><script>', [1], None)], "t")
    assert '"><script>' in texts(strips)
    assert shapes(strips, "heat-6")[0]["data-tip"] == '"><script>, bin 0: 1 of 1'


def test_each_strip_is_coloured_against_its_own_fullest_bin() -> None:
    drawing = charts.strips(axis(3), [Strip("en", [0, 9, 1_000], 2.5), Strip("de", [1, 0, 1], None)], "t")
    assert [len(shapes(drawing, f"heat-{depth}")) for depth in (0, 1, 6)] == [2, 1, 3]
    assert len(shapes(drawing, "mark", "line")) == 1


def test_the_fullest_hexagon_has_the_strongest_colour() -> None:
    cells = [Hexagon(8, 8, 100, "many"), Hexagon(9, 9, 1, "few")]
    ticks = [(float(power), str(2**power)) for power in range(7, 12)]
    drawing = charts.hexagons(cells, 0.25, ticks, (10.0, "large"), "t")
    assert [cell["data-tip"] for cell in shapes(drawing, "heat-6", "path")] == ["many"]
    assert [cell["data-tip"] for cell in shapes(drawing, "heat-1", "path")] == ["few"]
    assert len(shapes(drawing, "box")) == 1


def test_bars_are_as_long_as_their_counts() -> None:
    drawing = charts.bars([("a", 4, 0.8), ("b", 1, 0.2), ("c", 0, 0.0)], "kept", "t")
    first, second, third = (float(bar["width"]) for bar in shapes(drawing, "sink kept"))
    assert first == 4 * second
    assert third == 0
    assert "4  (80.0%)" in texts(drawing)
