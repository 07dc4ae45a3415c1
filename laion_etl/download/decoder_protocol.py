"""How decoders.py and its processes talk: length of an image, lengths of an answer's JSON and data."""

import struct

REQUEST = struct.Struct(">I")
ANSWER = struct.Struct(">II")
READY = b"\x01"
