"""Zero-shot classification as in the papers: LAION-5B, appendix on evaluation, after CLIP, section 3.1.4.

A class is the mean of the normalised embeddings of its name in many prompts, normalised again; an image
belongs to the class with the highest cosine. Reported are top-1 and top-5 accuracy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.evaluate.embed import embedded
from laion_etl.io.tarshard import MAX_MEMBER_BYTES, TarError, read_members
from laion_etl.score.model import ClipModel
from laion_etl.score.openclip import open_clip
from laion_etl.score.pixels import FORMATS
from laion_etl.score.preprocess_pool import ImageFile

Floats = NDArray[np.float32]
Labelled = tuple[ImageFile, int]

_ENDINGS = {"jpeg": "jpg", **{ending: ending for ending in FORMATS}}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of the readable images whose class ranked first, or among the first five."""

    images: int
    unreadable: int
    top1: float
    top5: float


def templates(name: str) -> Sequence[Callable[[str], str]]:
    """open_clip's prompts: `openai` (80), `simple` (7), or `photo`, "a photo of a .", alone."""
    open_clip()
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    known = {
        "openai": OPENAI_IMAGENET_TEMPLATES,
        "simple": SIMPLE_IMAGENET_TEMPLATES,
        "photo": (lambda name: f"a photo of a {name}.",),
    }
    if name not in known:
        raise InputError(f"unknown prompts {name!r}; expected one of {', '.join(known)}")
    found: Sequence[Callable[[str], str]] = known[name]
    return found


def class_embeddings(
    model: ClipModel, names: Sequence[str], prompts: Sequence[Callable[[str], str]]
) -> Floats:
    """One L2-normalised row for each class (classes, dim)."""
    rows = []
    for name in names:
        mean = model.embed_texts([prompt(name) for prompt in prompts]).mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


def classify(
    model: ClipModel,
    names: Sequence[str],
    labelled: Iterable[Labelled],
    prompts: Sequence[Callable[[str], str]],
) -> Accuracy:
    """Accuracy over images labelled with indices into `names`."""
    classes = class_embeddings(model, names, prompts)
    first = among_five = total = unreadable = 0
    for images, labels, lost in embedded(model, labelled):
        unreadable += lost
        nearest = np.argsort(-(images @ classes.T), axis=1, kind="stable")[:, :5]
        hits = nearest == np.asarray(labels)[:, None]
        first += int(hits[:, 0].sum())
        among_five += int(hits.any(axis=1).sum())
        total += len(labels)
    if not total:
        raise InputError("cannot measure the accuracy: no image could be read")
    return Accuracy(total, unreadable, first / total, among_five / total)


def image_folder(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], Iterator[Labelled]]:
    """Images of a folder with one subfolder per class, sorted; `names` replaces the subfolders' names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not classes:
        raise InputError(f"cannot read classes from {folder}: it has no subfolders")
    if names and len(names) != len(classes):
        raise InputError(f"{folder} has {len(classes)} classes, {len(names)} names were given")
    found = list(names) or [path.name.replace("_", " ") for path in classes]

    def images() -> Iterator[Labelled]:
        for label, path in enumerate(classes):
            for file in sorted(path.iterdir()):
                ending = _ENDINGS.get(file.suffix[1:].lower())
                if ending and file.stat().st_size <= MAX_MEMBER_BYTES:
                    yield (ending, file.read_bytes()), label

    return found, images()


def web_dataset(tars: Sequence[Path], names: Sequence[str]) -> Iterator[Labelled]:
    """Samples of tars with an image and a `cls` member, the number of its class."""
    for path in tars:
        label, image, key = None, None, ""
        try:
            with path.open("rb") as file:
                for name, data in read_members(file):
                    stem, _, ending = name.partition(".")
                    if stem != key:
                        label, image, key = None, None, stem
                    if ending == "cls":
                        label = _label(data, names, name)
                    elif ending in _ENDINGS:
                        image = _ENDINGS[ending], data
                    if label is not None and image is not None:
                        yield image, label
                        label, image = None, None
        except (OSError, TarError) as error:
            raise InputError(f"cannot read {path}: {error}") from error


def _label(data: bytes, names: Sequence[str], member: str) -> int:
    text = data.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) >= len(names):
        raise InputError(f"invalid class {text[:20]!r} in {member}; expected 0 to {len(names) - 1}")
    return int(text)
