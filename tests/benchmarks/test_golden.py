"""The figures of docs/accuracy.md: measured on the demo's model, and put in place of earlier ones."""

from pathlib import Path

from benchmarks.golden import DOCS, measure, photographs, scenes, section, with_section
from tests.score.conftest import TINY


def test_only_scaling_and_low_precision_move_similarities() -> None:
    files, captions = scenes()
    found = measure(TINY, files[:6], captions[:6])
    whole, scaled, reduced = found.ways
    assert (found.images, found.scaled, found.pairs) == (6, 6, 36)
    assert whole.largest < 1e-5 < scaled.largest < 0.05
    assert scaled.mean < reduced.mean
    assert whole.changed == (0, 0)
    text = section(found, "scenes")
    assert "| fp32, JPEGs decoded at full size |" in text
    assert "decisions changed at 0.28" in text


def test_a_later_run_replaces_the_section_of_its_model_and_keeps_others() -> None:
    page = DOCS.read_text(encoding="utf-8")
    mark, end = "<!-- golden: X -->", "<!-- end of golden -->"
    once = with_section(page, f"{mark}\none\n{end}\n")
    twice = with_section(once, f"{mark}\ntwo\n{end}\n")
    assert once.replace("\none\n", "\ntwo\n") == twice
    assert twice.count("<!-- golden: laion-etl-tiny/scenes -->") == 1
    assert twice.index(mark) < twice.index("## LAION's published heads")


def test_photographs_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    files, _ = scenes()
    (tmp_path / "good.jpg").write_bytes(files[0])
    (tmp_path / "broken.jpeg").write_bytes(files[1][:500])
    assert photographs(tmp_path, tmp_path) == [files[0]]
