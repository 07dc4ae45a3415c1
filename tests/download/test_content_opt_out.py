import pytest

from laion_etl.download.content_opt_out import opted_out_by_header


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
    ],
)
def test_opt_outs_are_honoured(tags: list[str]) -> None:
    assert opted_out_by_header(tags)


@pytest.mark.parametrize(
    "tags", [[], [""], ["all"], ["noarchive, nosnippet"], ["max-image-preview: large"], ["noaim"]]
)
def test_other_directives_are_not_opt_outs(tags: list[str]) -> None:
    assert not opted_out_by_header(tags)
