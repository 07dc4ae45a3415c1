"""The demo's model, loaded once."""

from tests.score.conftest import tiny_model

__all__ = ["tiny_model"]
