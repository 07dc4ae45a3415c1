"""The resize modes of img2dataset: from the size of a picture to what is done to it."""

from dataclasses import dataclass

from PIL import Image

from laion_etl.settings import DownloadSettings

Size = tuple[int, int]

_BY_LONGER_SIDE = frozenset({"keep_ratio_largest", "border"})
_SQUARE = frozenset({"center_crop", "border"})


@dataclass(frozen=True, slots=True)
class Change:
    """What a picture is scaled to, and the square it is cut or padded to afterwards, if any."""

    scale_to: Size
    square: int | None = None

    def apply(self, picture: Image.Image) -> Image.Image:
        """The picture scaled, then cut to its middle or padded with white.

        Averaging over areas on the way down, as img2dataset does; bicubic on the way up.
        """
        if picture.size != self.scale_to:
            down = picture.width >= self.scale_to[0]
            how = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
            picture = picture.resize(self.scale_to, how)
        if self.square is None or picture.size == (self.square, self.square):
            return picture
        square = Image.new(picture.mode, (self.square, self.square), "white")
        square.paste(picture, ((self.square - picture.width) // 2, (self.square - picture.height) // 2))
        return square


@dataclass(frozen=True, slots=True)
class Resize:
    """The resize settings."""

    mode: str
    side: int
    only_if_bigger: bool

    @classmethod
    def of(cls, settings: DownloadSettings) -> "Resize":
        return cls(settings.resize_mode, settings.image_size, settings.resize_only_if_bigger)

    def plan(self, size: Size) -> Change | None:
        """What to do to an upright picture of this size; None when it stays as it is."""
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
