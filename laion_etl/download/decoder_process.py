"""The decoder process: turns image bytes into the bytes to store, one image at a time, until its input ends.

This module is run once for a batch, as a fork server (`sandbox/fork_server.py`); decoders are its forks. A
decoder is confined (`sandbox/limits.py`), and killed when it takes too long or when its parent dies. Its
answers are parsed as JSON and bytes, never unpickled.

Out, once: one byte, when it is ready.
In:  4 bytes length, image bytes.    Out: 4 bytes length of JSON, 4 bytes length of data, JSON, data.
The JSON has the digests, and {"status": reason} or the fields of a StoredImage; empty data means "store the
bytes as downloaded".
"""

import gc
import io
import json
import sys
from dataclasses import replace
from typing import BinaryIO

from PIL import Image, ImageCms

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.box_resize import loops
from laion_etl.download.content_opt_out import opted_out_by_metadata
from laion_etl.download.decoder_protocol import ANSWER, READY, REQUEST
from laion_etl.download.hashes import Digests
from laion_etl.download.image_header import ImageRules
from laion_etl.download.images import ENCODINGS, ImageSettings, StoredImage, decode
from laion_etl.download.resize import Resize
from laion_etl.sandbox.fork_server import serve_forks
from laion_etl.sandbox.limits import confine


def answer(data: bytes, settings: ImageSettings, *, opt_out: bool) -> bytes:
    """Returns the framed answer for one image. With `opt_out`, images whose metadata opts out are refused."""
    hashes = Digests.from_bytes(data)
    header: dict[str, object] = {"sha256": hashes.sha256, "md5": hashes.md5}
    opted_out = opt_out and opted_out_by_metadata(data)
    found = DownloadStatus.OPTED_OUT_METADATA if opted_out else decode(data, settings)
    body = b""
    if not isinstance(found, StoredImage):
        header["status"] = found.value
    else:
        header |= {
            "format": found.format,
            "width": found.width,
            "height": found.height,
            "original_width": found.original_width,
            "original_height": found.original_height,
            "phash": found.phash,
            "pdq": found.pdq,
            "pdq_quality": found.pdq_quality,
            "original_pdqs": found.original_pdqs,
        }
        body = b"" if found.data is data else found.data
    text = json.dumps(header).encode()
    return ANSWER.pack(len(text), len(body)) + text + body


def serve(source: BinaryIO, sink: BinaryIO, settings: ImageSettings, *, opt_out: bool) -> None:
    """Answers images until the input ends."""
    sink.write(READY)
    sink.flush()
    while header := source.read(REQUEST.size):
        (length,) = REQUEST.unpack(header)
        sink.write(answer(source.read(length), settings, opt_out=opt_out))
        sink.flush()


def warm_up(settings: ImageSettings) -> None:
    """Decodes an image of each format, because modules imported at first use can't be imported later."""
    Image.init()
    every = replace(
        settings.rules, min_bytes=0, max_pixels=sys.maxsize, min_side=0, max_aspect_ratio=0.0, avif=True
    )
    every_image = replace(settings, rules=every)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for encoding in set(ENCODINGS.values()):
        for mode in ("RGB", "L"):
            buffer = io.BytesIO()
            Image.new(mode, (32, 32)).save(buffer, encoding, icc_profile=profile)
            answer(buffer.getvalue(), every_image, opt_out=True)
    loops()


_LLVM_MB = 136  # of address space, for the loops that average: an image has what the setting says


def main() -> None:
    """Arguments: memory limit in MiB, image settings as JSON, whether opt-outs are honoured."""
    memory_mb, plain, opt_out = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "True"
    rules, resize = ImageRules(**plain.pop("rules")), Resize(**plain.pop("resize"))
    settings = ImageSettings(rules, resize, **plain)
    warm_up(settings)
    gc.collect()
    gc.freeze()  # what is there now stays: no decoder has to look at it, nor copy the pages it is on
    serve_forks()
    confine(memory_mb + _LLVM_MB)
    serve(sys.stdin.buffer, sys.stdout.buffer, settings, opt_out=opt_out)


if __name__ == "__main__":
    main()
