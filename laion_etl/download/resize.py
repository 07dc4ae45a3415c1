"""The resize modes of img2dataset: which scaling and cropping an image of a given size gets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from laion_etl.download.box_resize import averaged

if TYPE_CHECKING:  # a decoder does without
    from laion_etl.settings import DownloadSettings

Size = tuple[int, int]

_BY_LONGER_SIDE = frozenset({"keep_ratio_largest", "border"})
_SQUARE = frozenset({"center_crop", "border"})


@dataclass(frozen=True, slots=True)
class Change:
    """The size an image is scaled to, and the square it is cropped or padded to afterwards, if any."""

    scale_to: Size
    square: int | None = None

    @property
    def size(self) -> Size:
        """The size of the image after all of it."""
        return self.scale_to if self.square is None else (self.square, self.square)

    def apply(self, image: Image.Image) -> Image.Image:
        """Returns the image scaled, then cropped to its centre or padded with white.

        Scaling down averages over areas, as img2dataset does; scaling up is bicubic.
        """
        if image.size != self.scale_to:
            image = averaged(image, self.scale_to) or _resized(image, self.scale_to)
        if self.square is None or image.size == (self.square, self.square):
            return image
        square = Image.new(image.mode, (self.square, self.square), "white")
        square.paste(image, ((self.square - image.width) // 2, (self.square - image.height) // 2))
        return square


def _resized(image: Image.Image, size: Size) -> Image.Image:
    down = image.width >= size[0]
    return image.resize(size, Image.Resampling.BOX if down else Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class Resize:
    """The resize settings."""

    mode: str
    side: int
    only_if_bigger: bool

    @classmethod
    def from_settings(cls, settings: "DownloadSettings") -> "Resize":
        return cls(settings.resize_mode, settings.image_size, settings.resize_only_if_bigger)

    def plan(self, size: Size) -> Change | None:
        """Returns how to change an upright image of this size; None if it stays as it is."""
        if self.mode == "no":
            return None
        measured = max(size) if self.mode in _BY_LONGER_SIDE else min(size)
        if self.only_if_bigger and measured <= self.side:
            return None
        width, height = (max(1, round(length * self.side / measured)) for length in size)
        square = self.side if self.mode in _SQUARE else None
        if (width, height) == size and square in (None, width) and square in (None, height):
            return None
        return Change((width, height), square)
