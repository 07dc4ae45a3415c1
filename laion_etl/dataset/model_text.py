"""Which models scored a batch, in one line each: for card, manifest, reports and comparisons.

The line has all that the similarities depend on. Batches with the same line were scored alike; those that
differ only in precision and device differ by little.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WEIGHTS = ", weights "
_WHERE = re.compile(r", [^,]* on [^,]*\Z")
_DIGITS = 12  # of a digest


def model_text(details: Mapping[str, Any]) -> str:
    """Return the model of a score stage's details; '' if they name none."""
    return _text(details, "model", "weights_sha256", "function")


def other_model_text(details: Mapping[str, Any]) -> str:
    """Return the model of other languages of a score stage's details; '' if there was none."""
    return _text(details, "other_model", "other_weights_sha256", "other_function")


def without_device(text: str) -> str:
    """Return the line of a model without precision and device."""
    return _WHERE.sub("", text)


def name_and_weights(text: str) -> str:
    """Return the beginning of the line of a model: its name, and its weights where they are known."""
    name, known, rest = text.partition(_WEIGHTS)
    return f"{name}{known}{rest.partition(',')[0]}"


def with_weights(texts: Iterable[str]) -> dict[str, str]:
    """Return for each line of a model the one that it counts as: itself, or one with weights.

    Of the model of other languages, earlier versions said the name only. Such a line counts as that of a
    model with the same name.
    """
    found = sorted(set(texts))
    full = {text.partition(_WEIGHTS)[0]: text for text in found if _WEIGHTS in text}
    return {text: text if _WEIGHTS in text else full.get(text, text) for text in found}


def distinct_models(texts: Iterable[str]) -> tuple[str, ...]:
    """Return different lines of models, sorted, without '' and without names that count as another line."""
    return tuple(sorted(set(with_weights(texts).values()) - {""}))


def _text(details: Mapping[str, Any], name: str, weights: str, function: str) -> str:
    named, digest = str(details.get(name, "")), str(details.get(weights, ""))
    if not digest:
        return named
    found = details.get(function)
    parts = [named or "unnamed model", f"weights {digest[:_DIGITS]}"]
    if isinstance(found, dict):
        parts += [*_function(found), f"{found.get('precision')} on {found.get('device')}"]
    return ", ".join(parts)


def _function(function: Mapping[str, Any]) -> list[str]:
    """Return what the stats say of a function: other versions said less."""
    found = []
    if activation := function.get("activation"):
        found.append(str(activation).replace(", ", " and ").replace("()", ""))
    if size := function.get("size"):
        how = (function.get(name) for name in ("interpolation", "resize_mode"))
        sides = sorted(set(size)) if isinstance(size, list | tuple) else size
        found.append(" ".join(map(str, (_numbers(sides), "px", *filter(None, how)))))
    found += [f"{name} {_numbers(function[name])}" for name in ("mean", "std") if function.get(name)]
    if tokenizer := function.get("tokenizer"):
        found.append(f"{function.get('context')} tokens by {str(tokenizer)[:_DIGITS]}")
    if architecture := function.get("architecture"):
        found.append(f"architecture {str(architecture)[:_DIGITS]}")
    return found


def _numbers(value: float | Sequence[float]) -> str:
    values = value if isinstance(value, list | tuple) else (value,)
    return "/".join(f"{number:.4g}" if isinstance(number, int | float) else str(number) for number in values)
