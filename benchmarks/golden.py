"""How far scores are from open_clip's own, and how many decisions that changes: figures for docs/accuracy.md.

The one command that verifies with real weights what the tests can only verify with the demo's model. It needs
the weights, so a network or a cache of them; without further settings they are the original's:

    python -m benchmarks.golden --photos FOLDER

Each image is scored by open_clip's own transform and towers, one at a time, in fp32 on the CPU, which is
the reference, and then by this package: decoded at full size, scaled while decoding, and in bf16. Every
image is compared with every caption of a fixed list. The result is a section of docs/accuracy.md, which
replaces that of an earlier run of the same model. Where embeddings of the weights are recorded, they are
compared, too.
"""

import argparse
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import make_photos
from laion_etl.core.errors import ModelError
from laion_etl.core.paper_thresholds import ENGLISH
from laion_etl.minicrawl.scenes import caption, draw, random_scene
from laion_etl.score.jpeg import decode_whole_jpeg
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.pixels import PixelPlan, format_of, load_pixels
from laion_etl.score.reference import compare
from laion_etl.score.thresholds import thresholds
from laion_etl.settings import ClipSettings, load_settings
from scripts.record_reference import plain_captions, plain_images

DOCS = Path(__file__).parents[1] / "docs" / "accuracy.md"
_END = "<!-- end of golden -->"
_LAST = "<!-- figures of other models: before this line -->"
_MADE_PHOTOS, _SCENES = 60, 60
_MOST_PIXELS = 1 << 26
_NEAR = 0.02  # of the threshold: pairs that a small difference may decide
_THINGS = (
    "dog", "cat", "horse", "bird", "flower", "tree", "mountain", "beach", "house", "street at night", "car",
    "bicycle", "train", "plane", "boat", "woman", "man", "crowd", "plate of food", "cup of coffee", "chair",
    "table", "book", "phone", "computer", "watch", "pair of shoes", "dress", "guitar", "painting", "map",
    "sign with text", "sky with clouds", "forest", "lake", "snowy landscape", "garden", "church", "bridge",
    "statue",
)  # fmt: skip

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute similarities, compared with the reference."""

    name: str
    mean: float
    largest: float
    changed: tuple[int, ...]  # decisions at each threshold


@dataclass(frozen=True, slots=True)
class Figures:
    """The result for a model."""

    model: str
    images: int
    scaled: int  # images that are scaled while decoding
    pairs: int
    thresholds: tuple[float, ...]
    near: tuple[int, ...]  # pairs within _NEAR of each threshold
    ways: tuple[Way, ...]
    reference: str


def measure(settings: ClipSettings, files: Sequence[bytes], captions: Sequence[str]) -> Figures:
    """Score all files with all captions in each way."""
    model = load_model(replace(settings, device="cpu", precision="fp32"))
    texts = plain_captions(model, captions)
    expected = plain_images(model, files) @ texts.T
    limits = tuple(sorted({ENGLISH, thresholds(settings).english}))
    ways = []
    for name, change in (
        ("fp32, JPEGs decoded at full size", {"jpeg_scaling": False}),
        ("fp32, JPEGs scaled while decoding (the default)", {}),
        ("bf16, JPEGs scaled while decoding (the default on GPUs)", {"precision": "bf16"}),
    ):
        other = load_model(replace(settings, **{"device": "cpu", "precision": "fp32", **change}))  # type: ignore[arg-type]
        found = _similarities(other, files, captions)
        off = np.abs(found - expected)
        changed = tuple(int(((found >= limit) != (expected >= limit)).sum()) for limit in limits)
        ways.append(Way(name, float(off.mean()), float(off.max()), changed))
    compared = compare(model)
    return Figures(
        model=model.name,
        images=len(files),
        scaled=sum(_is_scaled(data, model.pixel_plan) for data in files),
        pairs=expected.size,
        thresholds=limits,
        near=tuple(int((np.abs(expected - limit) <= _NEAR).sum()) for limit in limits),
        ways=tuple(ways),
        reference=compared.sentence if compared else "has no recorded embeddings to compare with",
    )


def _similarities(model: ClipModel, files: Sequence[bytes], captions: Sequence[str]) -> Floats:
    plan = model.pixel_plan
    pixels = [load_pixels(data, format_of(data) or "", [plan]) for data in files]
    images = model.embed_pixels(np.stack([one[0] for one in pixels if one is not None]))
    found: Floats = images @ model.embed_texts(captions).T
    return found


def _is_scaled(data: bytes, plan: PixelPlan) -> bool:
    if format_of(data) != "jpg":
        return False
    whole, scaled = (
        load_pixels(data, "jpg", [replace(plan, scale_jpegs=allowed)]) for allowed in (False, True)
    )
    return whole is not None and scaled is not None and bool((whole[0] != scaled[0]).any())


def photographs(folder: Path | None, work: Path) -> list[bytes]:
    """The readable JPEGs of a folder, or made ones with the spectrum of photographs."""
    paths = sorted(folder.rglob("*.jp*g")) if folder else make_photos(work, _MADE_PHOTOS)
    files = (path.read_bytes() for path in paths)
    return [data for data in files if decode_whole_jpeg(data, _is_bearable) is not None]


def _is_bearable(width: int, height: int) -> bool:
    return width * height <= _MOST_PIXELS


def scenes() -> tuple[list[bytes], list[str]]:
    """Drawn scenes, as large JPEGs, and captions of them: what the demo's model knows."""
    files, captions = [], []
    for seed in range(_SCENES):
        rng = random.Random(seed)
        scene = random_scene(rng)
        file = io.BytesIO()
        draw(scene, 640, 480, rng).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
        captions.append(caption(scene, "en", rng))
    return files, captions


def section(figures: Figures, what: str) -> str:
    """The figures as Markdown, with the marks between which a later run replaces them."""
    near = " and ".join(
        f"{count:,} within {_NEAR} of {limit:g}"
        for count, limit in zip(figures.near, figures.thresholds, strict=True)
    )
    columns = ["mean difference", "largest", *(f"decisions changed at {one:g}" for one in figures.thresholds)]
    lines = [
        f"<!-- golden: {figures.model} -->",
        "",
        f"### {figures.model}",
        "",
        f"{figures.images:,} images ({what}; {figures.scaled:,} of them are scaled while decoding), "
        f"{figures.pairs:,} pairs with a caption, {near}. The model {figures.reference}.",
        "",
        f"| compared with open_clip's own transform and towers | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(
            f"| {way.name} | {way.mean:.1e} | {way.largest:.1e} | {' | '.join(map(str, way.changed))} |"
            for way in figures.ways
        ),
        "",
        _END,
    ]
    return "\n".join(lines) + "\n"


def with_section(page: str, found: str) -> str:
    """The page with the section, in place of that of the same model."""
    mark = found.partition("\n")[0]
    start = page.find(mark)
    if start < 0:
        return page.replace(_LAST, f"{found}\n{_LAST}", 1)
    end = page.index(_END, start) + len(_END) + 1
    return page[:start] + found + page[end:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; default: made ones")
    parser.add_argument("--work", type=Path, default=Path("data/golden"), help="folder for made images")
    parser.add_argument("--page", type=Path, default=DOCS, help="page to write the figures into")
    arguments = parser.parse_args()
    try:
        _write_section(arguments.photos, arguments.work, arguments.page)
    except ModelError as error:
        raise SystemExit(str(error)) from error


def _write_section(photos: Path | None, work: Path, page: Path) -> None:
    settings = load_settings().clip
    is_tiny = load_model(settings).is_tiny  # before any image is made: the weights may be missing
    files = photographs(photos, work)
    captions = [f"a photo of a {thing}" for thing in _THINGS]
    what = "photographs" if photos else "made ones with the spectrum of photographs"
    if is_tiny:
        drawn, captions = scenes()
        files, what = [*drawn, *files], f"{len(drawn)} drawn scenes and {len(files)} {what}"
    figures = measure(settings, files, captions)
    found = section(figures, what)
    print(found)
    page.write_text(with_section(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
