"""Pins the images of images.txt by digest: there, and wherever the files of this folder name them.

    python docker/pin_images.py     (make pin-images; needs docker with buildx, and access to the registries)

A tag can be moved to another image; a digest cannot. The tag stays in the name, for the reader. To take a
newer image change the tag in images.txt and in the files that name it, and run this again.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
LIST = "images.txt"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def listed(folder: Path = FOLDER) -> list[str]:
    """Return the images of the list, with their digests if they have any."""
    lines = (folder / LIST).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def files(folder: Path = FOLDER) -> list[Path]:
    """Return the files that name images."""
    return sorted([*folder.glob("*.Dockerfile"), *folder.rglob("*.yaml")])


def digest_of(image: str) -> str:
    """Ask the registry for the digest of an image of all platforms."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def pin(folder: Path = FOLDER, ask: Callable[[str], str] = digest_of) -> list[str]:
    """Write the present digests everywhere; return the pinned names. Without all, nothing is written."""
    pinned = [_with_digest(name.partition("@")[0], ask) for name in listed(folder)]
    for path in (folder / LIST, *files(folder)):
        path.write_text(_named(path.read_text(), pinned))
    return pinned


def _with_digest(name: str, ask: Callable[[str], str]) -> str:
    digest = ask(name)
    if not _DIGEST.fullmatch(digest):
        sys.exit(f"cannot pin {name}: the registry answered {digest!r}; try again")
    return f"{name}@{digest}"


def _named(text: str, pinned: Iterable[str]) -> str:
    for name in pinned:
        tagged = re.escape(name.partition("@")[0])
        text = re.sub(rf"{tagged}(@{_DIGEST.pattern})?(?![\w.@-])", name, text)
    return text


if __name__ == "__main__":
    try:
        print("\n".join(pin()))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(
            f"cannot pin the images: {error}; docker with buildx and access to the registries are needed"
        )
