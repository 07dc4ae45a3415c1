"""Text towers without their padding: captions are short, contexts are 77 tokens long.

In CLIP's text transformer every token looks only at those before it and the embedding is that of the end
token; towers from Hugging Face's hub are told which tokens are padding. In both, what is padded changes
nothing: texts are encoded in groups of similar length, each cut to its longest. Towers built otherwise are
given the whole context.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.transfer import to_device

if TYPE_CHECKING:
    import torch

_GROUP_ON_CPU, _GROUP_ON_GPU = 16, 256  # smaller groups have less padding and fill the device less


def encode_texts(network: Any, tokens: NDArray[np.integer[Any]], device: str) -> "torch.Tensor":
    """open_clip's `encode_text(tokens)` (n, dim) for tokens (n, context), up to rounding."""
    import torch

    whole = torch.from_numpy(tokens).long()
    lengths = _causal_lengths(network, whole)
    encode: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] = encode_causal
    if lengths is None:
        lengths, encode = _masked_lengths(network, whole), _encode_masked
    if lengths is None:
        return _encode_masked(network, to_device(whole.numpy(), device), whole)
    order = torch.argsort(lengths, stable=True)
    ascending = lengths[order]
    sorted_tokens, ends, back = (
        to_device(part.numpy(), device) for part in (whole[order], ascending, torch.argsort(order))
    )
    size = _GROUP_ON_CPU if device == "cpu" else _GROUP_ON_GPU
    groups = []
    for start in range(0, len(order), size):
        group = slice(start, start + size)
        longest = int(ascending[group][-1])
        groups.append(encode(network, sorted_tokens[group, :longest], ends[group]))
    return torch.cat(groups)[back]


def _causal_lengths(network: Any, tokens: "torch.Tensor") -> "torch.Tensor | None":
    """Tokens of each text up to its end token; None when the tower may look at what is behind it."""
    causal = getattr(network, "attn_mask", None) is not None
    if not causal or getattr(network, "text_pool_type", "") != "argmax":
        return None
    return tokens.argmax(dim=-1) + 1


def _masked_lengths(network: Any, tokens: "torch.Tensor") -> "torch.Tensor | None":
    """Tokens of each text without padding; None when the tower is none of Hugging Face's."""
    import torch

    padding = getattr(getattr(getattr(network, "text", None), "config", None), "pad_token_id", None)
    if padding is None:
        return None
    places = torch.arange(1, tokens.shape[1] + 1)
    lengths: torch.Tensor = ((tokens != padding) * places).amax(dim=1).clamp_min(1)
    return lengths


def _encode_masked(network: Any, tokens: "torch.Tensor", _: "torch.Tensor") -> "torch.Tensor":
    found: torch.Tensor = network.encode_text(tokens)
    return found


def encode_causal(network: Any, tokens: "torch.Tensor", lengths: "torch.Tensor") -> "torch.Tensor":
    """Embeddings (n, dim) of tokens (n, longest) by CLIP's own tower; `lengths` up to the end tokens."""
    import torch

    longest = tokens.shape[1]
    kind = network.transformer.get_cast_dtype()
    hidden = network.token_embedding(tokens).to(kind) + network.positional_embedding[:longest].to(kind)
    hidden = network.transformer(hidden, attn_mask=network.attn_mask[:longest, :longest])
    ends = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
    last = network.ln_final(ends)
    projection = network.text_projection
    if projection is None:
        found: torch.Tensor = last
    elif isinstance(projection, torch.nn.Linear):
        found = projection(last)
    else:
        found = last @ projection
    return found
