"""How html_parser.py and its process talk: lengths of charset and body, length of an answer."""

import struct

REQUEST = struct.Struct(">II")
ANSWER = struct.Struct(">I")
READY = b"\x01"
