"""Reading torch's files: never their code, and what failed in words of our own.

What torch raises for a damaged file may be anything, and for a file that holds more than tensors its message
advises to run the code.
"""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from laion_etl.core.errors import ModelError


def read_torch(path: Path, what: str) -> Any:
    """Return the content of a file, tensors and plain values only. Raises ModelError for any other file."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch's readers raise anything
        raise ModelError(
            f"cannot read the {what} {path}: {reading_cause(error)}; download it again"
        ) from error


def reading_cause(error: Exception) -> str:
    """Return why a file of weights could not be read, in one line."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, UnpicklingError):
        return "it is damaged, not a file of weights, or one that holds code besides weights"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not text:
        return "it is empty or cut off"
    if isinstance(error, (RuntimeError, OSError)) or type(error) is ValueError:
        return text
    return f"it is damaged, or not a file of weights ({type(error).__name__}: {text})"


def check_floats(floats: Mapping[str, bool], path: Path) -> None:
    """Raise ModelError that names the first tensor whose numbers are not floats.

    Quantised weights are integers that a scale belongs to: without it they give wrong scores. torch would
    convert them without a word.
    """
    for name, are_floats in floats.items():
        if not are_floats:
            raise ModelError(
                f"cannot use the weights {path}: {name} does not hold floating-point numbers, as in "
                "quantised weights; use the weights that were not quantised"
            )
