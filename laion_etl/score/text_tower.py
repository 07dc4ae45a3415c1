"""Text towers without their padding: captions are short, contexts are 77 tokens long.

In CLIP's text transformer every token looks only at those before it and the embedding is that of the end
token; towers from Hugging Face's hub are given a mask of the padding. In both, padding changes nothing:
texts are encoded in groups of similar length, each cut to its longest. Towers built otherwise are
given the whole context.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.device_transfer import to_device

if TYPE_CHECKING:
    import torch

GROUP_ON_GPU = 256  # smaller groups have less padding and fill the device less
Tokens = NDArray[np.integer[Any]]
Places = NDArray[np.intp]
_Encode = Callable[[Any, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class TextGroup:
    """Texts that are encoded together, cut to the longest of them."""

    places: Places  # (n) indices into the input
    tokens: Tokens  # (n, longest)
    lengths: Tokens  # (n), up to the end token
    _encode: _Encode

    def encode(self, network: Any, device: str) -> "torch.Tensor":
        """open_clip's `encode_text` (n, dim) of them, up to rounding."""
        return self._encode(network, to_device(self.tokens, device), to_device(self.lengths, device))


def text_groups(network: Any, tokens: Tokens, size: int) -> list[TextGroup]:
    """Tokens (n, context), from the shortest text to the longest, `size` in a group."""
    import torch

    whole = torch.from_numpy(tokens).long()
    lengths = _causal_lengths(network, whole)
    encode: _Encode = encode_causal
    if lengths is None:
        lengths, encode = _masked_lengths(network, whole), _encode_masked
    if lengths is None:
        lengths = torch.full((len(whole),), whole.shape[1])
    order = torch.argsort(lengths, stable=True)
    groups = []
    for start in range(0, max(1, len(order)), size):
        chosen = order[start : start + size]
        longest = int(lengths[chosen].max()) if len(chosen) else whole.shape[1]
        cut = whole[chosen, :longest].numpy()
        groups.append(TextGroup(chosen.numpy(), cut, lengths[chosen].numpy(), encode))
    return groups


def encode_texts(network: Any, tokens: Tokens, device: str) -> "torch.Tensor":
    """open_clip's `encode_text(tokens)` (n, dim) for tokens (n, context), up to rounding."""
    import torch

    groups = text_groups(network, tokens, GROUP_ON_GPU)
    back = np.argsort(np.concatenate([group.places for group in groups]))
    return torch.cat([group.encode(network, device) for group in groups])[to_device(back, device)]


def _causal_lengths(network: Any, tokens: "torch.Tensor") -> "torch.Tensor | None":
    """Tokens of each text up to its end token; None when the tower may attend to later tokens."""
    causal = getattr(network, "attn_mask", None) is not None
    if not causal or getattr(network, "text_pool_type", "") != "argmax":
        return None
    return tokens.argmax(dim=-1) + 1


def _masked_lengths(network: Any, tokens: "torch.Tensor") -> "torch.Tensor | None":
    """Tokens of each text without padding; None unless the tower is Hugging Face's."""
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
