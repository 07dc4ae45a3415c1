"""Zero-shot classification as in the papers: LAION-5B, appendix on evaluation, after CLIP, section 3.1.4.

A class is the mean of the normalised embeddings of its name in many prompts, normalised again; an image
belongs to the class with the highest cosine. Reported are top-1 and top-5 accuracy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.core.whole_numbers import whole_number
from laion_etl.evaluate.embed import embedded
from laion_etl.evaluate.image_files import as_image, files_of, is_image_ending, read_image
from laion_etl.io.tarshard import TarError, read_members
from laion_etl.score.finite import check_embeddings
from laion_etl.score.model import ClipModel
from laion_etl.score.openclip import open_clip
from laion_etl.score.preparer import ImageFile

_SAME = 1e-5  # of a cosine

Floats = NDArray[np.float32]
Labelled = tuple[ImageFile, int]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of the readable images whose class ranked first, or among the first five."""

    images: int
    unreadable: int
    top1: float
    top5: float
    alike: tuple[tuple[str, str], ...] = ()  # pairs of classes that the model cannot tell apart


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
        rows.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
    found = np.stack(rows)
    check_embeddings(found, model.name, "a class name")
    return found


def alike(classes: Floats, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of classes whose embeddings are the same but for rounding: the model cannot tell them apart."""
    found = []
    for first, row in enumerate(classes):
        later = np.flatnonzero(classes[first + 1 :] @ row > 1 - _SAME) + first + 1
        found += [(names[first], names[second]) for second in later.tolist()]
    return found


def classify(
    model: ClipModel,
    names: Sequence[str],
    labelled: Iterable[Labelled],
    prompts: Sequence[Callable[[str], str]],
    preparers: int,
) -> Accuracy:
    """Accuracy over images labelled with indices into `names`; `preparers` as for `embedded`."""
    classes = class_embeddings(model, names, prompts)
    same = alike(classes, names)
    first = among_five = total = unreadable = 0
    for images, labels, lost in embedded(model, labelled, preparers):
        unreadable += lost
        check_embeddings(images, model.name, "an image")
        nearest = np.argsort(-(images @ classes.T), axis=1, kind="stable")[:, :5]
        hits = nearest == np.asarray(labels)[:, None]
        first += int(hits[:, 0].sum())
        among_five += int(hits.any(axis=1).sum())
        total += len(labels)
    if not total:
        raise InputError("cannot measure the accuracy: no image could be read")
    return Accuracy(total, unreadable, first / total, among_five / total, tuple(same))


def class_folders(folder: Path) -> list[Path]:
    """The subfolders in the order of their classes: by number if all names are numbers, else by name.

    Hidden ones, such as .ipynb_checkpoints, are none.
    """
    there = folder.iterdir() if folder.is_dir() else ()
    found = sorted(path for path in there if path.is_dir() and not path.name.startswith("."))
    numbers = {path: number for path in found if (number := whole_number(path.name)) is not None}
    return sorted(found, key=numbers.__getitem__) if len(numbers) == len(found) else found


def class_mapping(images: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return which folder or number stands for which class, a line for each."""
    if len(images) == 1 and images[0].is_dir():
        keys = [path.name for path in class_folders(images[0])]
    else:
        keys = [str(number) for number in range(len(names))]
    return [f"{key}: {name}" for key, name in zip(keys, names, strict=True)]


def image_folder(folder: Path, names: Sequence[str] = ()) -> tuple[list[str], Iterator[Labelled]]:
    """Images of a folder with one subfolder per class, which may have subfolders itself.

    `names` replaces the names of the classes' folders. Hidden files and folders are left out.
    """
    classes = class_folders(folder)
    if not classes:
        raise InputError(f"cannot read classes from {folder}: it has no subfolders")
    if names and len(names) != len(classes):
        raise InputError(
            f"{folder} has {quantity(len(classes), 'class', 'classes')}, {len(names)} names were given"
        )
    found = list(names) or [path.name.replace("_", " ") for path in classes]

    def images() -> Iterator[Labelled]:
        for label, path in enumerate(classes):
            for file in files_of(path)[0]:
                if not any(part.startswith(".") for part in file.relative_to(path).parts):
                    yield read_image(file), label

    return found, images()


def web_dataset(tars: Sequence[Path], names: Sequence[str]) -> Iterator[Labelled]:
    """Samples of tars with an image and a `cls` member, the number of its class, named as webdataset does.

    A sample without an image counts as one that cannot be read. Raises InputError for an image without class.
    """
    for path in tars:
        try:
            with path.open("rb") as file:
                members = ((*_key_and_ending(name), data) for name, data in read_members(file))
                shown = (member for member in members if member[0])
                for key, of_sample in groupby(shown, key=itemgetter(0)):
                    if (labelled := _labelled(key, of_sample, names)) is not None:
                        yield labelled
        except (OSError, TarError) as error:
            raise InputError(f"cannot read {path}: {error}") from error


def _key_and_ending(name: str) -> tuple[str, str]:
    """`a.b/0001` and `seg.png` of a.b/0001.seg.png; hidden files and those without ending have no key."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return (f"{folder}{slash}{stem}" if stem and dot else ""), ending.lower()


def _labelled(key: str, members: Iterable[tuple[str, str, bytes]], names: Sequence[str]) -> Labelled | None:
    """Return a sample with its class, the first image if it has several; None for other files."""
    label, image = None, None
    for _, ending, data in members:
        if ending == "cls":
            label = _label(data, names, f"{key}.cls")
        elif image is None and is_image_ending(ending):
            image = as_image(ending, data)
    if label is None:
        if image is not None:
            raise InputError(
                f"cannot use the sample {key!r}: it has no .cls member; add the number of its class"
            )
        return None
    return image or as_image("", b""), label


def _label(data: bytes, names: Sequence[str], member: str) -> int:
    text = data.decode("ascii", "replace").strip()
    number = whole_number(text)
    if number is None or number >= len(names):
        raise InputError(f"invalid class {text[:20]!r} in {member}; expected 0 to {len(names) - 1}")
    return number
