"""NSFW heads: small dense networks on CLIP image embeddings.

LAION's for ViT-H/14, `h14_nsfw.pth`, is read as it is. Those for ViT-B/32 and ViT-L/14 are Keras models,
which `laion-etl model convert-head` converts to a safetensors format of our own.

Tensors `mean`, `variance` (dim), `0.weight` (in, out), `0.bias` (out), and so on, and for each number of the
embedding that is looked up instead of used, `table.N.keys` (int64, millionths) and `table.N.values` (int64).
The file's metadata says `format: laion-etl-dense-head`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.finite import check_arrays, check_layers
from laion_etl.score.kernels import Doubles
from laion_etl.score.layer_chain import NSFW, LayerChain, chain_of, places_of, read_state
from laion_etl.score.products import product
from laion_etl.score.torch_files import check_floats

Floats = NDArray[np.float32]
_FORMAT = "laion-etl-dense-head"
_TORCH = frozenset({".pth", ".pt", ".bin"})
_EPSILON = np.float32(1e-7)  # of Keras


@dataclass(frozen=True, slots=True)
class DenseHead:
    """sigmoid(dense(.. relu(dense(normalised embedding)))); `tables` map texts of numbers to categories."""

    mean: Floats
    variance: Floats
    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    tables: Mapping[int, Mapping[str, int]]

    @property
    def dim(self) -> int:
        return len(self.mean)

    def score(self, images: Floats) -> Floats:
        """Probabilities (n) of L2-normalised embeddings (n, dim)."""
        with np.errstate(over="ignore"):  # of exp, where the probability is 0
            return (1 / (1 + np.exp(-self.logits(images)))).astype(np.float32)

    def logits(self, images: Floats) -> Doubles:
        """What the probabilities are computed from (n): they differ where all of those are rounded to 1.

        The embeddings (n, dim) are rounded to float16 first.
        """
        values: Floats = images.astype(np.float16).astype(np.float32)
        for column, table in self.tables.items():
            values[:, column] = [table.get(f"{value:.6f}", 0) for value in values[:, column]]
        values = ((values - self.mean) / np.maximum(np.sqrt(self.variance), _EPSILON)).astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = np.maximum(product(values, weight) + bias, 0).astype(np.float32)
        logits: Doubles = (product(values, self.weights[-1]) + self.biases[-1])[:, 0]
        return logits

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        arrays = (self.mean, self.variance, *self.weights, *self.biases)
        return fingerprint(
            *(array.tobytes() for array in arrays), {k: dict(v) for k, v in self.tables.items()}
        )

    def save(self, path: Path) -> None:
        """Writes the head in our format."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[np.generic]] = {"mean": self.mean, "variance": self.variance}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays |= {f"{number}.weight": weight, f"{number}.bias": bias}
        for column, table in self.tables.items():
            keys = [round(float(text) * 1e6) for text in table]
            arrays[f"table.{column}.keys"] = np.asarray(keys, np.int64)
            arrays[f"table.{column}.values"] = np.asarray(list(table.values()), np.int64)
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, path, {"format": _FORMAT})


@dataclass(frozen=True, slots=True)
class NsfwChain:
    """LAION's detector for ViT-H/14: it was trained to answer 0 or 1, and what lies outside is cut off."""

    chain: LayerChain

    def score(self, images: Floats) -> Floats:
        """Scores (n), 0 to 1, of L2-normalised embeddings (n, dim); NaN where a sum has overflowed.

        An infinity must not become 0 or 1, which readers would take for a verdict.
        """
        scores = self.chain.score(images)
        return np.where(np.isfinite(scores), np.clip(scores, 0, 1), np.float32(np.nan))

    @property
    def identity(self) -> str:
        """Changes when the head does."""
        return fingerprint("nsfw", self.chain.identity)


def load_nsfw_head(path: Path, dim: int) -> DenseHead | NsfwChain:
    """Reads a head for embeddings of `dim`; raises ModelError for another file or another model."""
    if path.suffix in _TORCH:
        return _read_chain(path, dim)
    return _read_dense(path, dim)


def _read_chain(path: Path, dim: int) -> NsfwChain:
    state = read_state(path, "NSFW head")
    if places_of(state) not in NSFW:
        raise ModelError(
            f"cannot use the NSFW head {path}: it is not LAION's h14_nsfw.pth; give that file, or one that "
            "`laion-etl model convert-head` has made"
        )
    return NsfwChain(chain_of(state, path, dim, NSFW))


def _read_dense(path: Path, dim: int) -> DenseHead:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ModelError(
                    f"{path} is not a laion-etl NSFW head; make one with `laion-etl model convert-head`"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # numpy has no bfloat16, float8
        advice = "run `laion-etl model convert-head` on it" if path.suffix == ".zip" else "convert it again"
        raise ModelError(f"cannot read the NSFW head {path}: {error}; {advice}") from error
    numbers = {name: array for name, array in arrays.items() if not name.startswith("table.")}
    check_floats({name: array.dtype.kind == "f" for name, array in numbers.items()}, path)
    try:
        head = _head(arrays)
    except KeyError as error:
        raise ModelError(f"{path} is a damaged NSFW head: {error} is missing") from error
    except ValueError as error:
        raise ModelError(f"{path} is a damaged NSFW head: {error}") from error
    weights = {f"{number}.weight": weight for number, weight in enumerate(head.weights)}
    biases = {f"{number}.bias": bias for number, bias in enumerate(head.biases)}
    check_arrays({"mean": head.mean, "variance": head.variance, **weights, **biases}, path)
    check_layers(weights, path)
    if head.dim != dim:
        raise ModelError(f"{path} is a head for embeddings of {head.dim} numbers, the CLIP model makes {dim}")
    return head


def _head(arrays: Mapping[str, NDArray[np.generic]]) -> DenseHead:
    with np.errstate(over="ignore"):  # to infinity, which is refused
        floats = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"}
    layers = sum(name.endswith(".weight") for name in floats)
    parts = {f"{number}.{part}" for number in range(layers) for part in ("weight", "bias")}
    tables = {name for name in arrays if name.endswith(".keys")}
    known = {"mean", "variance", *parts, *tables, *(name.removesuffix("keys") + "values" for name in tables)}
    if unknown := sorted(set(arrays) - known):
        raise ValueError(f"{unknown[0]} is not a part of such a head")
    weights = tuple(floats[f"{number}.weight"] for number in range(layers))
    biases = tuple(floats[f"{number}.bias"] for number in range(layers))
    if any(values.ndim != 1 for values in (floats["mean"], floats["variance"], *biases)):
        raise ValueError("mean, variance or a bias is not a row of numbers")
    sizes = [len(floats["mean"]), *(len(bias) for bias in biases)]
    shapes = [weight.shape for weight in weights]
    if shapes != list(pairwise(sizes)) or not layers or sizes[-1] != 1:
        raise ValueError(f"its layers do not fit together: {shapes}")
    if floats["variance"].shape != floats["mean"].shape:
        raise ValueError("mean and variance differ in length")
    if (floats["variance"] < 0).any():
        raise ValueError("a variance is negative")
    by_column = dict(_table(name, arrays, sizes[0]) for name in sorted(tables))
    return DenseHead(floats["mean"], floats["variance"], weights, biases, by_column)


def _table(name: str, arrays: Mapping[str, NDArray[np.generic]], dim: int) -> tuple[int, dict[str, int]]:
    """Return the number of the embedding that a table looks up, and the table."""
    column = int(name.removeprefix("table.").removesuffix(".keys"))
    keys, values = arrays[name], arrays[name.removesuffix("keys") + "values"]
    if not 0 <= column < dim or any(one.ndim != 1 or one.dtype.kind != "i" for one in (keys, values)):
        raise ValueError(f"{name} is not for one of {dim} numbers, or it is not a row of whole numbers")
    texts = (f"{key / 1e6:.6f}" for key in keys.tolist())
    return column, dict(zip(texts, map(int, values.tolist()), strict=True))
