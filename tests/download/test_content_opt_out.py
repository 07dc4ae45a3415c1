import pytest

from laion_etl.download.content_opt_out import opted_out_by_header, reserved_by_header


@pytest.mark.parametrize(
    "tags",
    [
        ["noai"],
        ["noimageai"],
        ["NoIndex"],
        ["noarchive, noimageindex"],
        ["noml"],
        ["none"],
        ["examplebot: noai"],
        ["nosnippet", " noai "],
        ["noai noimageai"],
        ["nofollow noai"],
        ["noindex;nofollow"],
        ["nofollow; noimageindex"],
        ["examplebot: nofollow, noindex"],
        ['"noai"'],
        ["max-image-preview:none, noai"],
        ["max-image-preview:none noai"],
        ["max-image-preview:none,none"],
        ["max-image-preview: noindex"],
        ["unavailable_after: 25 Jun 2010 15:00:00 PST, none"],
        ["none;max-snippet:-1"],
        ["otherbot: noindex"],
        ["googlebot: nofollow", "otherbot: noimageai"],
        ["noai|noimageai"],
        ["noai/noimageai"],
        ["[noai]"],
        ["{noai}"],
        ["noai."],
        ["noai=1"],
        ["noai\0"],
        ["noindex\u00a0nofollow"],
        ["no-ai"],
        ["no-image-ai"],
        ["No-Index"],
        ["max-image-preview none"],  # may be two directives
    ],
)
def test_opt_outs_are_honoured(tags: list[str]) -> None:
    assert opted_out_by_header(tags)


@pytest.mark.parametrize(
    "tags",
    [
        [],
        [""],
        ["all"],
        ["noarchive, nosnippet"],
        ["max-image-preview: large"],
        ["noaim"],
        ["max-image-preview:none"],
        ["Max-Image-Preview : None, max-snippet:-1"],
        ["googlebot: max-image-preview: none"],
        ["max-video-preview:0; max-image-preview:none"],
        ["unavailable_after: 25 Jun 2099 15:00:00 PST"],
        ["index follow"],
        ["max-image-preview=none"],
        ['max-image-preview: "none"'],
        ["noarchive|nosnippet"],
        ["none-such"],
    ],
)
def test_other_directives_are_not_opt_outs(tags: list[str]) -> None:
    assert not opted_out_by_header(tags)


@pytest.mark.parametrize(
    "values",
    [
        *(["1"], [" 1 "], ['"1"'], ["1;"], ["0", "1"], ["0, 1"], ["true"], ["True;"]),
        *(["1; policy=0"], ["0; 1"], ["0; tdm-reservation=1"], ["0; policy=1, 1"], ["0;policy=x", "1"]),
        *(["0; ai-train=no"], ["0; policy=1; train-ai=n"]),
        ["0" + ";v=    " * 50 + "x, 1"],  # years, if its blanks were shared out in all ways
    ],
)
def test_reservations_are_honoured(values: list[str]) -> None:
    assert reserved_by_header(values)


@pytest.mark.parametrize(
    "values",
    [
        *([], [""], ["0"], ["10"], ["no"], ["false"]),
        # 0 with parameters (RFC 9651, 3.1.2); TDMRep has the policy in a header of its own
        *(["0;policy=1"], ["0; policy=1"], ["0 ; tdm-policy=https://a.example/1"], ['0; policy="1, 1"; v=1']),
        ["0, policy=1"],
    ],
)
def test_other_values_reserve_nothing(values: list[str]) -> None:
    assert not reserved_by_header(values)
