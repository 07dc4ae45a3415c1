"""Safety tags: the two nearest categories decide; a suspected minor is dropped only with an unsafe image."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from laion_etl.core.errors import ModelError
from laion_etl.score.head import HeadInput
from laion_etl.score.model import ClipModel
from laion_etl.score.safety import (
    MUST_DROP,
    PROMPTS,
    SUSPECTED_UNDERAGE,
    NsfwTag,
    SafetyJudge,
    SafetyPrompts,
    Suspects,
    load_prompts,
)

DIM = 6
NSFW = {"without": {"a": ["axis 0"]}, "present": {"b": ["axis 1"]}}


class FakeTower:
    """Embeds the text "axis N" as the N-th unit vector: images can be placed exactly."""

    name = "fake"

    def embed_texts(self, texts: tuple[str, ...]) -> np.ndarray:
        return np.eye(DIM, dtype=np.float32)[[int(text.split()[1]) for text in texts]]


def judge_with(suspects: Suspects = Suspects.ALL, **contrasts: object) -> SafetyJudge:
    nsfw = {"without": {"a": ["axis 0"], "b": ["axis 1"]}, "present": {"c": ["axis 2"], "d": ["axis 3"]}}
    document = {"nsfw": nsfw, "underage_words": ["Gizmo", "гизмо"], **contrasts}
    return SafetyJudge(FakeTower(), parsed(document), suspects)  # type: ignore[arg-type]


def parsed(document: dict[str, object] | None) -> SafetyPrompts:

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        return load_prompts(Path(file.name))


def near(*axes: int) -> np.ndarray:
    """An image nearest to these axes, in order."""
    image = np.full(DIM, 0.01, np.float32)
    for place, axis in enumerate(axes):
        image[axis] = 1.0 - 0.1 * place
    return (image / np.linalg.norm(image))[None]


@pytest.mark.parametrize(
    ("axes", "tag"),
    [
        ((2, 3), NsfwTag.NSFW),
        ((3, 2), NsfwTag.NSFW),
        ((2, 0), NsfwTag.UNSURE),
        ((1, 3), NsfwTag.UNSURE),
        ((0, 1), NsfwTag.UNLIKELY),
        ((1, 0, 2, 3), NsfwTag.UNLIKELY),
    ],
)
def test_the_two_nearest_categories_decide_the_tag(axes: tuple[int, ...], tag: NsfwTag) -> None:
    (verdict,) = judge_with().judge(near(*axes), ["a text"])
    assert verdict.nsfw_tag is tag


def test_of_equally_near_categories_the_unsafe_ones_decide() -> None:
    everywhere = np.full((1, DIM), DIM**-0.5, np.float32)
    (verdict,) = judge_with().judge(everywhere, ["a text"])
    assert verdict.nsfw_tag is NsfwTag.NSFW


def test_categories_that_the_model_cannot_tell_apart_are_refused() -> None:
    for name in ("nsfw", "underage"):
        same = {"without": {"a": ["axis 0"]}, "present": {"b": ["axis 1"], "c": ["axis 0"]}}
        with pytest.raises(ModelError, match="safety prompts on both sides of a boundary are the same"):
            judge_with(**{name: same})


def test_punsafe_is_the_softmax_mass_of_the_unsafe_categories() -> None:
    image = near(2, 0)
    (verdict,) = judge_with().judge(image, ["a text"])
    powers = np.exp(100 * image[0, :4].astype(np.float64))
    assert verdict.punsafe == pytest.approx(powers[2:].sum() / powers.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "suspect"),
    [
        ("a GIZMO plays", True),
        ("Гизмо", True),
        ("gizmo_2020", True),
        ("gizmolike wonder", False),
        ("regizmo", False),
        ("", False),
    ],
)
def test_words_of_the_prompt_file_are_found_whole_and_in_any_case(text: str, suspect: bool) -> None:
    (verdict,) = judge_with().judge(near(2, 3), [text])
    assert verdict.suspected_underage is suspect
    assert verdict.must_drop is suspect


@pytest.mark.parametrize(
    ("axes", "tag", "dropped"),
    [((2, 3), NsfwTag.NSFW, True), ((2, 0), NsfwTag.UNSURE, True), ((0, 1), NsfwTag.UNLIKELY, False)],
)
def test_a_suspected_minor_is_dropped_unless_the_image_is_harmless(
    axes: tuple[int, ...], tag: NsfwTag, dropped: bool
) -> None:
    suspect, other = judge_with().judge(np.vstack([near(*axes)] * 2), ["a child", "a lamp"])
    assert (suspect.nsfw_tag, suspect.must_drop) == (tag, dropped)
    assert (other.nsfw_tag, other.must_drop) == (tag, False)


def test_suspicion_alone_drops_nothing() -> None:
    (verdict,) = judge_with().judge(near(0, 1), ["a child"])
    assert verdict.suspected_underage
    assert not verdict.must_drop


def test_captions_of_harmless_images_are_only_searched_where_a_head_may_drop_them() -> None:
    images = np.vstack([near(*axes) for axes in ((2, 3), (2, 0), (0, 1), (0, 1))])
    samples = HeadInput(images, ["a child", "a lamp", "a child", "a lamp"])
    every, by_tag = (judge_with(suspects).score(samples) for suspects in (Suspects.ALL, Suspects.BY_TAG))
    assert every.pop(SUSPECTED_UNDERAGE) == [True, False, True, False]
    assert by_tag.pop(SUSPECTED_UNDERAGE) == [True, False, False, False]
    assert every == by_tag
    assert every[MUST_DROP] == [True, False, False, False]


def test_categories_of_the_image_raise_suspicion_too() -> None:
    underage = {"without": {"adult": ["axis 4"], "none": ["axis 0"]}, "present": {"young": ["axis 5"]}}
    judge = judge_with(underage=underage)
    young, adult = judge.judge(np.vstack([near(2, 3, 5), near(2, 3, 4, 0)]), ["a text", "a text"])
    assert young.must_drop
    assert not adult.must_drop
    assert young.punderage is not None
    assert adult.punderage is not None
    assert young.punderage > 0.9
    assert adult.punderage < 0.1


def test_contrasts_that_are_not_asked_for_stay_empty() -> None:
    (verdict,) = judge_with().judge(near(0), ["a text"])
    assert (verdict.pviolence, verdict.punderage, verdict.pwatermark) == (None, None, None)


@pytest.mark.parametrize("name", ["clip.json", "laion-etl-tiny.json"])
def test_shipped_prompts_can_be_judged_with(name: str, tiny_model: ClipModel) -> None:
    judge = SafetyJudge(tiny_model, load_prompts(PROMPTS / name))
    (verdict,) = judge.judge(tiny_model.embed_texts(["a photo"]), ["a photo"])
    assert 0 <= verdict.punsafe <= 1
    assert (verdict.pviolence is None) == (name != "clip.json")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"nsfw": {}},
        {"nsfw": {"without": {"a": []}, "present": {"b": ["c"]}}, "underage_words": []},
        [],
        {"nsfw": {"without": {"a": "axis 0"}, "present": {"b": ["c"]}}, "underage_words": []},
        {"nsfw": {"without": {"a": [" "]}, "present": {"b": ["c"]}}, "underage_words": []},
        {"nsfw": NSFW, "underage_words": "kid"},
        {"nsfw": NSFW, "underage_words": [], "violense": NSFW},
        {"nsfw": NSFW | {"others": {}}, "underage_words": []},
        {"nsfw": NSFW, "underage_words": [], "violence": False},
        {"nsfw": NSFW, "underage_words": ["!!!"]},
        {"nsfw": NSFW, "underage_words": ["\ud800"]},
        None,
    ],
)
def test_a_broken_prompt_file_is_a_one_line_error(document: dict[str, object] | None) -> None:
    with pytest.raises(ModelError, match="cannot use the safety prompts"):
        parsed(document)


def test_a_part_of_a_prompt_file_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"nsfw": NSFW, "underage_words": []}))
    assert load_prompts(tmp_path / "prompts.json").underage_words == frozenset()
    (tmp_path / "prompts.json").write_text('{"underage_words": ["gizmo"], "nsfw": {}, "underage_words": []}')
    with pytest.raises(ModelError, match="'underage_words' is there twice"):
        load_prompts(tmp_path / "prompts.json")
