import xml.etree.ElementTree as ET

from markupsafe import Markup

from laion_etl.publish import charts
from laion_etl.publish.charts import FlowStep, Marker


def texts(drawing: Markup) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(str(drawing)).iter("text")]  # noqa: S314


def rects(drawing: Markup, name: str) -> list[dict[str, str]]:
    found = ET.fromstring(str(drawing)).iter("rect")  # noqa: S314 - drawn by us
    return [node.attrib for node in found if node.attrib["class"] == name]


def test_the_funnel_shows_every_stage_and_sums_up_rare_reasons() -> None:
    reasons = [(f"reason {i}", 10 - i) for i in range(8)]
    steps = [
        FlowStep("parse", "Links", 1052, 1000, reasons),
        FlowStep("load", "Pairs", 1000, 400, [("old", 600)]),
    ]
    shown = texts(charts.funnel(steps, "Published"))
    for expected in (
        "Links",
        "1,052",
        "−52 in parse",
        "10 reason 0",
        "12 for 3 more reasons",
        "Published",
        "400",
    ):
        assert expected in shown
    assert "5 reason 5" not in shown


def test_bands_of_the_funnel_are_as_thick_as_their_counts() -> None:
    steps = [FlowStep("parse", "Links", 1000, 250, [("a", 750)]), FlowStep("load", "Pairs", 250, 250, [])]
    heights = [float(rect["height"]) for rect in rects(charts.funnel(steps, "End"), "node")]
    assert heights == [150.0, 37.5, 37.5]


def test_a_funnel_of_nothing_can_be_drawn() -> None:
    assert texts(charts.funnel([], "")) == ["", "0"]
    assert "−" not in str(charts.funnel([FlowStep("parse", "Links", 0, 0, [])], "End"))


def test_columns_of_a_histogram_stack_to_the_tallest() -> None:
    drawing = charts.histogram([0, 1, 2], [("kept", [3, 1]), ("rejected", [1, 0])], [], [(1, "1")], "t")
    kept, rejected = rects(drawing, "kept"), rects(drawing, "rejected")
    assert [float(rect["height"]) for rect in kept] == [157.5, 52.5]
    assert float(rejected[0]["y"]) + float(rejected[0]["height"]) == float(kept[0]["y"])
    assert "4" in texts(drawing)


def test_labels_and_titles_are_escaped() -> None:
    drawing = charts.histogram([0, 1], [("kept", [1])], [Marker(0.5, "<b>&")], [], 'a "title" <i>')
    assert "<b>&" in texts(drawing)
    assert ET.fromstring(str(drawing)).attrib["aria-label"] == 'a "title" <i>'  # noqa: S314


def test_the_fullest_square_has_the_strongest_colour() -> None:
    drawing = charts.heat_map([[0, 1], [9, 100]], ["1", "2", "4"], 1.0, "box", "t")
    assert [len(rects(drawing, f"heat-{depth}")) for depth in range(6)] == [1, 1, 1, 0, 0, 1]
    assert len(rects(drawing, "box")) == 1
