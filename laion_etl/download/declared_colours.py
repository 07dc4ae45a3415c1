"""Colour profiles of what a PNG or AVIF declares in a few numbers: its primaries and its curve.

Browsers apply these like an ICC profile, and so an ICC profile is made of them: one conversion to sRGB serves
all. The curves of HDR (PQ, HLG) are left out, since what a screen without HDR shows of them is not defined.
"""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

_ADAPTED_WHITE = (0.9642, 1.0, 0.8249)  # D50, which profiles are relative to
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)  # another white
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# Primaries by their number in ITU-T H.273: white, red, green, blue.
_PRIMARIES = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # ICC's third kind of formula
# Curves by their number. Those of television are shown as sRGB.
_CURVES = {**dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE), 4: (2.2,), 5: (2.8,), 8: (1.0,)}
_USUAL_GAMMA = 0.45455  # which writers of sRGB declare
_NEAR = 0.05  # of the gamma, which libpng takes for no difference
_SAME = 0.005  # of a chromaticity
_UNIT = 100_000  # of gAMA and cHRM


def profile_of_png(found: Mapping[bytes, bytes]) -> bytes | None:
    """Return the profile that the chunks of a PNG declare apart from iCCP; None where they do not count.

    `found` has the bodies by kind. cICP goes before iCCP, iCCP and sRGB before gAMA and cHRM,
    of which the second counts only beside the first.
    """
    code = found.get(b"cICP", b"")
    if len(code) == 4 and code[2:] == b"\0\1" and (made := profile_of_codes(code[0], code[1])) is not None:
        return made
    if b"iCCP" in found or len(found.get(b"sRGB", b"")) == 1:
        return None
    primaries, gamma = _chromaticities(found.get(b"cHRM", b"")), _gamma(found.get(b"gAMA", b""))
    if gamma is None or (primaries is None and abs(gamma / _USUAL_GAMMA - 1) <= _NEAR):
        return None
    return _profile(primaries or _SRGB, (1 / gamma,))


def profile_of_codes(primaries: int, curve: int) -> bytes | None:
    """Return the profile of numbers in ITU-T H.273; None for those that are not converted."""
    if primaries not in _PRIMARIES or curve not in _CURVES:
        return None
    return _profile(_PRIMARIES[primaries], _CURVES[curve])


def _chromaticities(body: bytes) -> Sequence[float] | None:
    """Return white, red, green and blue; None if they are those of sRGB, or not given."""
    if len(body) != 32:
        return None
    found = [value / _UNIT for value in struct.unpack(">8i", body)]
    is_usual = all(abs(one - other) <= _SAME for one, other in zip(found, _SRGB, strict=True))
    return None if is_usual else found


def _gamma(body: bytes) -> float | None:
    return int.from_bytes(body, "big") / _UNIT or None if len(body) == 4 else None


def _profile(chromaticities: Sequence[float], curve: Sequence[float]) -> bytes | None:
    """Return an ICC profile of version 4; None if no colours have these primaries."""
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused
            columns = [_pack(column) for column in _adapted(chromaticities).T]
        function = b"para" + struct.pack(">4xHxx", 0 if len(curve) == 1 else 3) + _pack(curve)
    except (ZeroDivisionError, np.linalg.LinAlgError, struct.error, ValueError):
        return None
    tags = {b"wtpt": b"XYZ \0\0\0\0" + _pack(_ADAPTED_WHITE)}
    for name, column in zip(b"rgb", columns, strict=True):
        tags[bytes([name]) + b"XYZ"] = b"XYZ \0\0\0\0" + column
        tags[bytes([name]) + b"TRC"] = function
    place, table, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for kind, body in tags.items():
        table += struct.pack(">4sII", kind, place + len(content), len(body))
        content += body
    head = struct.pack(">I4xI4s4s4s", place + len(content), 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _pack(_ADAPTED_WHITE)
    return head.ljust(128, b"\0") + table + content


def _adapted(chromaticities: Sequence[float]) -> np.ndarray:
    """Return red, green and blue as columns of XYZ, adapted to the white of profiles by Bradford's method."""
    points = [
        (x / y, 1.0, (1 - x - y) / y) for x, y in zip(chromaticities[::2], chromaticities[1::2], strict=True)
    ]
    white, colours = np.array(points[0]), np.array(points[1:]).T
    scaled = colours * np.linalg.solve(colours, white)
    cones = (_BRADFORD @ np.array(_ADAPTED_WHITE)) / (_BRADFORD @ white)
    adapted: np.ndarray = np.linalg.inv(_BRADFORD) @ (cones[:, None] * (_BRADFORD @ scaled))
    if not np.isfinite(adapted).all():
        raise ValueError
    return adapted


def _pack(values: Sequence[float] | np.ndarray) -> bytes:
    """Return numbers with 16 bits behind the point."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65_536) for value in values))
