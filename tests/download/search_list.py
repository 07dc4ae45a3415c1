"""What is asked of the nameserver of a machine with a search list. Runs in a network namespace of its own.

    unshare --map-root-user --net --mount python -m tests.download.search_list FOLDER

Prints, as JSON, what each way of looking a name up found, and the names that it asked for.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUDPServer

import dns.message
import dns.rcode
import dns.rrset
import trio

from laion_etl.download.nameservers import StubSource, system_servers
from laion_etl.download.resolver import NoSuchName, Source, SystemSource

DEAD = "img.dead.example"
_SEARCHED = "corp.example."  # whatever is asked for below it exists
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 1


def main(folder: Path) -> None:
    _configure(folder)
    asked: list[str] = []
    _serve(asked)
    ways: dict[str, Callable[[], str]] = {
        "without a final dot": lambda: socket.getaddrinfo(DEAD, None)[0][4][0],
        "system": lambda: _look_up(SystemSource()),
        "own": lambda: _look_up(StubSource(system_servers())),
    }
    found = {}
    for way, look_up in ways.items():
        asked.clear()
        found[way] = (look_up(), sorted(set(asked)))
    print(json.dumps(found))


def _configure(folder: Path) -> None:
    """Starts the loopback interface, and puts configuration files of its own into place."""
    for name, text in (
        ("resolv.conf", f"nameserver 127.0.0.1\nsearch ns.svc.{_SEARCHED} {_SEARCHED}\noptions ndots:5\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        (folder / name).write_text(text)
        subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def _serve(asked: list[str]) -> None:
    class Udp(BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            question = dns.message.from_wire(data)
            name, reply = str(question.question[0].name), dns.message.make_response(question)
            asked.append(name)
            if not name.endswith(f".{_SEARCHED}"):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            elif question.question[0].rdtype.name == "A":
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "93.184.216.34"))
            sock.sendto(reply.to_wire(), self.client_address)

    server = ThreadingUDPServer(("127.0.0.1", 53), Udp)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _look_up(source: Source) -> str:
    try:
        return trio.run(source.look_up, DEAD).literals[0]
    except NoSuchName:
        return "no such name"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
