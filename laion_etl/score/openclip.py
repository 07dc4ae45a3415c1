"""The only module that imports open_clip: late, because torch takes seconds, and with a fix for torchvision.

torchvision's wheels on PyPI are built for CUDA; with a CPU build of torch their compiled part cannot
load, and the import fails with "operator torchvision::nms does not exist", although open_clip needs only
torchvision's Python transforms. Declaring the two operators' schemas is enough for the import; calling
them would still fail, and nothing here does.
"""

import logging
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_DETECTION_OPERATORS = ("nms", "qnms")
_declared: list[object] = []  # the library object must live as long as its schemas


@cache
def open_clip() -> ModuleType:
    """The open_clip module, with the tiny model's config registered."""
    _make_torchvision_importable()
    import open_clip as module

    from laion_etl.score.demo_model import CONFIG_FILE

    module.add_model_config(CONFIG_FILE)
    found: ModuleType = module
    return found


def create_network(name: str, **options: Any) -> Any:
    """An open_clip network without weights; its warning that it has none is kept from the log.

    Options are those of `create_model`; others, like `quick_gelu`, replace values of the model's config.

    Only that: other threads may be logging.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or "open_clip" not in Path(record.pathname).parts

    # open_clip logs to the root logger; the records of other loggers do not pass this filter.
    logging.root.addFilter(wanted)
    try:
        return open_clip().create_model(name, load_weights=False, pretrained_text=False, **options)
    finally:
        logging.root.removeFilter(wanted)


def _make_torchvision_importable() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_detection_operators()


def _declare_detection_operators() -> None:
    import torch

    library: Any = torch.library
    fragment = library.Library("torchvision", "DEF")
    for operator in _DETECTION_OPERATORS:
        fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(fragment)
