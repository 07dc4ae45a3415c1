"""LAION's NSFW detectors, Keras models by AutoKeras, read without TensorFlow.

https://github.com/LAION-AI/CLIP-based-NSFW-Detector. Such a model is a chain: the numbers of
the embedding are normalised, then pass dense layers with ReLU between them and a sigmoid at the end.
AutoKeras treated a few of the 512 numbers as categories, because they repeat in its float16 training data:
these are formatted with six decimals and looked up in a table of such strings; a missing one counts as 0.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.score.nsfw_head import DenseHead
from laion_etl.score.tf_checkpoint import BundleError, fields, read_bundle

_MAX_BYTES = 200_000_000
_LAYERS = re.compile(r"layer_with_weights-(\d+)/(kernel|bias|mean|variance)/\.ATTRIBUTES/VARIABLE_VALUE")
_KNOWN = frozenset(
    {"InputLayer", "Custom>MultiCategoryEncoding", "Normalization", "Dense", "ReLU", "Dropout", "Activation"}
)
_STRINGS, _INT64 = 7, 9
# Also RuntimeError: of members that are encrypted, or compressed in a way that Python does not know.
_OF_ARCHIVES = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, LZMAError, struct.error)


def read_keras_head(path: Path) -> DenseHead:
    """The head in a zipped SavedModel; raises ModelError for any other file or architecture."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2]: name for name in archive.namelist()}
            names = (
                "keras_metadata.pb",
                "saved_model.pb",
                "variables.index",
                "variables.data-00000-of-00001",
            )
            metadata, graph, index, data = (_member(archive, members[name]) for name in names)
        encodings = _encodings(metadata)
        layers = _layers(read_bundle(index, data))
        return _head(layers, dict(zip(encodings, _tables(graph), strict=True)))
    except (*_OF_ARCHIVES, BundleError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read the Keras model {path}: {type(error).__name__} {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_BYTES:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _encodings(metadata: bytes) -> list[int]:
    """Indices of the embedding that are categories; checks the architecture first."""
    start = metadata.index(b'{"name": "model"')
    document, _ = json.JSONDecoder().raw_decode(metadata[start:].decode("utf-8", "replace"))
    layers = document["config"]["layers"]
    kinds = [layer["class_name"] for layer in layers]
    if not set(kinds) <= _KNOWN or kinds[-1] != "Activation":
        raise ValueError(f"its layers are {', '.join(kinds)}")
    dense = [layer["config"] for layer in layers if layer["class_name"] == "Dense"]
    if any(config["activation"] != "linear" for config in dense) or kinds.count("ReLU") != len(dense) - 1:
        raise ValueError("its dense layers are not followed by ReLU")
    if layers[-1]["config"]["activation"] != "sigmoid":
        raise ValueError("it does not end with a sigmoid")
    encoded = next((layer for layer in layers if layer["class_name"].endswith("Encoding")), None)
    encoding = encoded["config"]["encoding"] if encoded else []
    if not set(encoding) <= {"none", "int"}:
        raise ValueError("its encodings are of an unknown kind")
    return [place for place, kind in enumerate(encoding) if kind == "int"]


def _layers(tensors: Mapping[str, NDArray[np.generic]]) -> list[dict[str, NDArray[np.float32]]]:
    found: dict[int, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in tensors.items():
        if match := _LAYERS.fullmatch(name):
            found.setdefault(int(match[1]), {})[match[2]] = tensor.astype(np.float32)
    return [found[number] for number in sorted(found)]


def _head(layers: list[dict[str, NDArray[np.float32]]], tables: dict[int, dict[str, int]]) -> DenseHead:
    normalise, *dense = layers
    return DenseHead(
        mean=normalise["mean"].ravel(),
        variance=normalise["variance"].ravel(),
        weights=tuple(layer["kernel"] for layer in dense),
        biases=tuple(layer["bias"] for layer in dense),
        tables=tables,
    )


def _tables(saved_model: bytes) -> Iterator[dict[str, int]]:
    """The look-up tables in the order in which the model uses them.

    In the graph (SavedModel.meta_graphs[0].graph_def) each is filled by a call with three inputs: the table,
    its texts, its numbers. The calls are numbered in the order of the columns that use the tables.
    """
    meta_graph = next(value for number, value in fields(saved_model) if number == 2)
    graph = next(value for number, value in fields(_bytes(meta_graph)) if number == 2)
    constants: dict[bytes, Any] = {}
    filled = []
    for number, value in fields(_bytes(graph)):
        if number != 1:
            continue
        node = list(fields(_bytes(value)))
        name, kind = (next(_bytes(v) for n, v in node if n == wanted) for wanted in (1, 2))
        inputs = [_bytes(v) for n, v in node if n == 3]
        if kind == b"Const":
            constants[name] = node
        elif kind == b"StatefulPartitionedCall" and len(inputs) == 3:
            filled.append(inputs[1:])
    for texts, numbers in filled:
        if texts in constants and numbers in constants:
            yield dict(zip(_texts(constants[texts]), _numbers(constants[numbers]), strict=True))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise BundleError("a message is a number")
    return value


def _tensor_of(node: list[tuple[int, int | bytes]]) -> list[tuple[int, int | bytes]]:
    """The TensorProto in the attribute `value` of a constant."""
    for number, entry in node:
        pair = dict(fields(_bytes(entry))) if number == 5 else {}
        if pair.get(1) == b"value":
            return list(fields(_bytes(dict(fields(_bytes(pair[2])))[8])))
    raise ValueError("a constant has no value")


def _texts(node: list[tuple[int, int | bytes]]) -> list[str]:
    tensor = _tensor_of(node)
    if (1, _STRINGS) not in tensor:
        raise ValueError("the keys of a table are not texts")
    return [_bytes(value).decode("ascii") for number, value in tensor if number == 8]


def _numbers(node: list[tuple[int, int | bytes]]) -> list[int]:
    tensor = _tensor_of(node)
    if (1, _INT64) not in tensor:
        raise ValueError("the values of a table are not numbers")
    content = next(_bytes(value) for number, value in tensor if number == 4)
    return [int(value) for value in np.frombuffer(content, "<i8")]
