"""Finds where a photograph was taken in the words of its metadata, whatever their format."""

import re
from functools import lru_cache

_SHORT_BYTES = 64

# Properties of EXIF, Photoshop, IPTC, W3C (geo:lat) and drone schemas in XMP, whatever their prefixes, and
# those of C2PA.
PLACE = rb"city|state|country|countrycode|countryname|province|provincestate|sublocation|worldregion|location"
LOCATION = re.compile(
    rb"(?i:gps|latitude|longitude|georss|geo_?hash|geo_?tag|coordinates|locality|postal_?code|ciadr|openstreetmap"
    rb"|maps\.google|google\.[a-z.]{2,6}/maps|goo\.gl/maps|\bgeo:\s?-?[0-9]|\bplaces[|/]"
    rb"|\b(?:lat|lon|lng|long)\s?[:=]\s?-?[0-9])"
    rb"|[0-9](?:\xc2?\xb0|&deg;|&#176;|\s?deg\b)\s?[0-9]|[<:\"](?:lat|long|lat_long)\b"
    rb"|[<:\"](?i:content)?(?i:"
    + PLACE
    + rb"|eventlocation|shotlocation|coverage|venue|place|town|address(?:line)?)"
    rb"(?i:created|shown|name|id)?\b"
    rb"|\b(?i:"
    + PLACE
    + rb"|place|town|venue|address)s?(?:\s?[:=]\s?\w|[|/]\w)"  # in free text, and keywords
    rb"|(?i:geo_?(?:location|position)|lat_?lng|\blatitud\b|maps\.apple)"
    # 52.5200, 13.4050; 52.5200N 13.4050E; N52 31.2 E13 24.3; 9F4MGCJ3+V6
    rb"|\b[0-9]{1,2}\.[0-9]{3,15}\s?[,;]\s?-?[0-9]{1,3}\.[0-9]{3}"
    rb"|[0-9]\.[0-9]{1,15}\s?[NS][\s,;]{0,2}[0-9]{1,3}\.[0-9]{1,15}\s?[EWO]\b"
    rb"|\b[NS]\s?[0-9]{1,2}[\s.][0-9.'\s]{1,12}[,;]?\s?[EWO]\s?[0-9]"
    rb"|\b[2-9CFGHJMPQRVWX]{8}\+[2-9CFGHJMPQRVWX]{2}"
)
_WIDE = re.compile(rb"([^\0])\0")  # a letter in UTF-16, in either order of bytes


def names_a_place(data: bytes) -> bool:
    """Whether bytes name a location, also in UTF-16."""
    return _is_known(data) if len(data) <= _SHORT_BYTES else _is_found(data)


@lru_cache(maxsize=64)  # most often the same header of JFIF, or what is behind an image: nothing
def _is_known(data: bytes) -> bool:
    return _is_found(data)


def _is_found(data: bytes) -> bool:
    if LOCATION.search(data) is not None:
        return True
    return b"\0" in data and LOCATION.search(_WIDE.sub(rb"\1", data)) is not None
