"""Where in a JPEG a wish counts: in all of the file but the entropy-coded data of its first image."""

import io
from collections.abc import Callable

import pytest
from PIL import Image

from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.decoder_process import answer
from laion_etl.download.images import ImageSettings
from laion_etl.download.jpeg_segments import SCAN, outside_scans, segments
from laion_etl.settings import DownloadSettings

WISH = b'<x plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"/>'
XMP = b"http://ns.adobe.com/xap/1.0/\0" + WISH
SEGMENT = b"\xff\xe1" + (len(XMP) + 2).to_bytes(2, "big") + XMP
END = b"\xff\xd9"


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def scans(data: bytes) -> list[int]:
    """Where the pixels of each scan begin."""
    return [end for marker, _, end in segments(data) if marker == SCAN]


def at_start(data: bytes) -> bytes:
    return data[:2] + SEGMENT + data[2:]


def between_scans(data: bytes) -> bytes:
    place = data.index(b"\xff\xc4", scans(data)[0])
    return data[:place] + SEGMENT + data[place:]


def before_the_end(data: bytes) -> bytes:
    return data.removesuffix(END) + SEGMENT + END


def after_fill_bytes(data: bytes) -> bytes:
    return data.removesuffix(END) + b"\xff\xff\xff" + SEGMENT + END


def behind_the_end(data: bytes) -> bytes:
    return data + WISH


def in_a_second_image(data: bytes) -> bytes:
    return data + at_start(data)


def in_place_of_the_end(data: bytes) -> bytes:
    return data.removesuffix(END) + WISH


def behind_stray_bytes(data: bytes) -> bytes:
    return data[:2] + b"stray" + data[2:].removesuffix(END) + WISH + END


PLACES = [
    at_start,
    before_the_end,
    after_fill_bytes,
    behind_the_end,
    in_a_second_image,
    in_place_of_the_end,
    behind_stray_bytes,
]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("put", PLACES)
def test_a_wish_outside_the_pixels_counts(put: Callable[[bytes], bytes], progressive: bool) -> None:
    assert opted_out_by_metadata(put(jpeg(progressive=progressive)))


def test_a_wish_between_scans_counts() -> None:
    data = jpeg(progressive=True)
    assert len(scans(data)) > 1
    assert opted_out_by_metadata(between_scans(data))


def test_pixels_are_no_wish_whatever_decides() -> None:
    data = jpeg()
    place = scans(data)[0] + 20
    assert not opted_out_by_metadata(data[:place] + WISH + data[place:])
    settings = ImageSettings.from_settings(DownloadSettings(min_bytes=1, min_side=1))
    text = answer(data[:place] + WISH + data[place:], settings, opt_out=True)
    assert b"opted_out" not in text


def test_only_pixels_are_left_out() -> None:
    for data in (jpeg(), jpeg(progressive=True), between_scans(jpeg(progressive=True))):
        found = outside_scans(data)
        assert found.startswith(data[: scans(data)[0]])
        assert found.endswith(END)
        assert len(found) < len(data)
        assert [one[0] for one in segments(found)] == [one[0] for one in segments(data)]
    assert outside_scans(jpeg() + b"rest") == outside_scans(jpeg()) + b"rest"


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", jpeg()[:-2], jpeg()[:300], jpeg()[:2] + b"x" + jpeg()[2:]]
)
def test_a_file_that_does_not_lead_to_its_end_is_searched_whole(data: bytes) -> None:
    assert outside_scans(data) == data
