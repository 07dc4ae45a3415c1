"""Images with the spectrum of photographs: coloured noise that falls with frequency, as JPEG."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

_WIDTHS = (640, 800, 1024, 1200, 1500)
_ASPECTS = (0.5625, 0.66, 0.75, 1.0)


def make_photos(folder: Path, count: int) -> list[Path]:
    """`count` files of about 125 kB on average, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        path = folder / f"{seed:03d}.jpg"
        if not path.exists():
            path.write_bytes(_photo(seed))
        paths.append(path)
    return paths


def _photo(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    width = int(rng.choice(_WIDTHS))
    height = int(width * rng.choice(_ASPECTS))
    light = _noise(rng, height, width, 1.6) * 50 + 128
    warm, cold = (_noise(rng, height, width, 1.9) * 20 for _ in range(2))
    pixels = np.stack([light + warm, light, light + cold], -1).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(75, 92)))
    return buffer.getvalue()


def _noise(rng: np.random.Generator, height: int, width: int, fall: float) -> np.ndarray:
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.sqrt(down * down + across * across)
    frequency[0, 0] = 1
    waves = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) / frequency**fall
    noise = np.fft.irfft2(waves, s=(height, width))
    return np.asarray((noise - noise.mean()) / noise.std())
