"""What loading a network leaves in the log."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from laion_etl.score import openclip


def test_only_the_warnings_of_open_clip_are_kept_from_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = openclip.open_clip()

    def create_model(name: str, **options: Any) -> Any:
        logging.getLogger("laion_etl.score.stage").warning("of another thread")
        return real.create_model(name, **options)

    monkeypatch.setattr(openclip, "open_clip", lambda: SimpleNamespace(create_model=create_model))
    openclip.create_network("laion-etl-tiny")
    assert [record.getMessage() for record in caplog.records] == ["of another thread"]
    real.create_model("laion-etl-tiny", load_weights=False)
    assert any("open_clip" in record.pathname for record in caplog.records), "it does warn otherwise"
