"""Opt-outs in headers, also under names that are not quite right."""

import pytest

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.header_opt_outs import refuse_opted_out
from laion_etl.download.http_head import parse_head
from laion_etl.download.link_failed import LinkFailed

DIRECTIVES = [
    "X-Robots-Tag: noai",
    "X-Robots-Tags: noai",
    "X-Robot-Tag: noimageai",
    "X-Robot-Tags: noindex",
    "X_Robots_Tag: noai",
    "X-RobotsTag: noai",
    "XRobotsTag: noai",
    "X-Robost-Tag: noai",
    "X-Robots-Tag : noai",
    "Robots-Tag: noai",
    "X-Robots: noai",
    "Robot: noai",
    "X-Robot: noai",
    "X_Robots: noai",
    "Robots: noindex, noimageai",
    "Meta-Robots: noai",
    "X-Meta-Robots: noai",
    "NoAI: 1",
    "NoAI: true",
    "No-AI:",
    "X-NoAI: 1",
    "X-No-Image-AI: yes",
    "X-Robots-Tag: no\u2011ai",
    "X-Robots-Tag: no\u00adai",
    "X-Robots-Tag: \u201cnoai\u201d",
    "X-Robots-Tag: \uff4e\uff4f\uff41\uff49",
    "X-Robots-Tag noai",
    "X-Robots-Tag=noai",
    "X-Robots-Tag\tnoindex, noai",
    "X-Robots-Tag; noimageai",
    "noai",
]
RESERVATIONS = [
    "TDM-Reservation: 1",
    "TDM_Reservation: 1",
    "TDMReservation: 1",
    "X-TDM-Reservation: true",
    "TDM-Reservations: 1",
    "TDM-Reserved: yes",
    "TDM-Reservaton: 1",
    "TDMRep: 1",
    "TDMRep-Reservation: 1",
    "TDM: 1",
    "TDM-Reservation: \uff11",
    "tdm-reservation 1",
    "TDM-Reservation=1",
]
PREFERENCES = [
    "Content-Usage: train-ai=n",
    "Content_Usage: train-ai=n",
    "X-Content-Usage: train-ai=n",
    "Content-Signals: ai-train=no",
    "X-Content-Signal: ai-train=no",
    "ContentSignal: ai-train=no",
    "AI-Usage: train-ai=n",
    "Usage-Preference: train-ai=n",
    "AI-Training: no",
    "X-AI-Training: disallow",
    "Allow-AI-Training: false",
    "Train-AI: n",
    "AI-Train: ?0",
    "DisallowAITraining: /",
    "X-Disallow-AI: 1",
    "Content-Usage train-ai=n",
    "Content-Signal ai-train=no, search=yes",
]
NO_WISHES = [
    "X-Robots-Tag: all",
    "X-Robots: index, follow",
    "Robots: all",
    "Robots: max-image-preview:none",
    "NoAI: 0",
    "X-AI-Usage: 0",
    "X-NoAI: false",
    "TDM-Reservation: 0",
    "TDM_Reservation: 0",
    "TDM: 0",
    "TDM-Policy: https://a.example/1",
    "Content-Usage: train-ai=y",
    "Content-Signals: ai-train=yes, search=yes",
    "AI-Training: yes",
    "Allow: no",
    "Disallow: /",
    "User-Agent: *",
    "Server: noai",
    "X-Cache: none",
    "Vary: X-Robots-Tag",
    "Content-Security-Policy: default-src 'none'",
    "Content-Type: noai/noai",
    "Access-Control-Allow-Origin: null",
    f"X-Robots-Tag{'s' * 50}: noai",
    "X-Robots-Tag",
    "X-Robots-Tag all",
    "Link: <https://a.example/license>; rel=license",
    "Link: <https://a.example/a.css>; rel=preload; as=style",
    "License: https://a.example/license.xml",
    "TDM-Reservation 0",
    "Content-Usage train-ai=y",
    "Server noai",
    "some text with noai in it",
    " ",
    "=",
]


def found(line: str) -> tuple[S, str] | None:
    try:
        refuse_opted_out(parse_head(b"HTTP/1.1 200 OK\r\nServer: a\r\n" + line.encode()))
    except LinkFailed as failure:
        return failure.status, failure.message
    return None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (DIRECTIVES, (S.OPTED_OUT_ROBOTS_TAG, "")),
        (RESERVATIONS, (S.OPTED_OUT_TDM, "header")),
        (PREFERENCES, (S.OPTED_OUT_TDM, "usage")),
        (NO_WISHES, None),
    ],
)
def test_a_wish_is_known_by_what_its_header_must_mean(
    lines: list[str], expected: tuple[S, str] | None
) -> None:
    assert [(line, outcome) for line in lines if (outcome := found(line)) != expected] == []


@pytest.mark.parametrize(
    "line",
    [
        'Link: <https://a.example/license.xml>; rel="license"; type="application/rsl+xml"',
        "link: </l.xml>;type=application/rsl+xml;rel=license",
        'Link: </a>; rel=next, </l.xml>; rel="license"; type="Application/RSL+XML"',
    ],
)
def test_terms_that_are_elsewhere_are_not_read_and_count_as_a_wish(line: str) -> None:
    assert found(line) == (S.OPTED_OUT_TDM, "license")


def test_a_line_without_a_colon_is_no_header_of_another_kind() -> None:
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length 7\r\n folded\r\nTransfer-Encoding chunked"
    )
    assert head.all("content-length") == ["5 folded"]
    assert not head.all("transfer-encoding")
