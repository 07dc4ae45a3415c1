"""Does a dataset train? A few steps of open_clip's own training on the kept samples of a crawl.

It checks that the shards are what training code expects: webdataset reads them, the images decode, the texts
tokenise, and the loss is finite. The trained model is discarded.
"""

import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laion_etl.core.errors import InputError, ModelError
from laion_etl.dataset.scored import find_scored
from laion_etl.io.storage import Store
from laion_etl.score.openclip import open_clip

_LOSS = re.compile(r"Train Epoch: 0 .*?Contrastive_loss: ([\d.]+|nan)")
_MIN_BATCH = 2  # samples: the contrastive loss needs at least two


@dataclass(frozen=True, slots=True)
class TrainCheck:
    """Loss of the first and the last batch that open_clip logged."""

    samples: int
    batch_size: int
    losses: tuple[float, ...]


def check_training(
    crawl: str, store: Store, *, model: str, max_samples: int = 256, batch_size: int = 16
) -> TrainCheck:
    """Trains `model` from random weights, on the CPU, for one epoch of at most `max_samples` kept samples.

    Raises InputError without enough samples, ModelError when open_clip cannot train on them.
    """
    scored = find_scored(crawl, store)
    kept, names = 0, []
    for batch in scored.batches:
        if kept < max_samples:
            kept += batch.kept
            names.append(scored.shard_name(batch.number, ".tar"))
    samples = min(kept, max_samples)
    if samples < batch_size or batch_size < _MIN_BATCH:
        raise InputError(
            f"cannot train: {crawl} has {kept} kept samples, too few for a batch of {batch_size}"
        )
    with tempfile.TemporaryDirectory(prefix="laion-etl-train-") as folder:
        for number, name in enumerate(names):
            with store.open(name) as source, (Path(folder) / f"{number:05d}.tar").open("wb") as sink:
                shutil.copyfileobj(source, sink)
        arguments = [
            *("--train-data", f"{folder}/{{00000..{len(names) - 1:05d}}}.tar"),
            *("--dataset-type", "webdataset", "--train-num-samples", str(samples - samples % batch_size)),
            *("--batch-size", str(batch_size), "--epochs", "1", "--warmup", "1", "--workers", "1"),
            *("--model", model, "--precision", "fp32", "--device", "cpu", "--log-every-n-steps", "1"),
            *("--logs", f"{folder}/logs", "--name", "check", "--save-frequency", "0"),
        ]
        _train(arguments)
        log = (Path(folder) / "logs" / "check" / "out.log").read_text()
    losses = tuple(float(loss) for loss in _LOSS.findall(log))
    if not losses or not all(map(math.isfinite, losses)):
        raise ModelError(f"open_clip trained without a finite loss: {losses}")
    return TrainCheck(samples, batch_size, losses)


def _train(arguments: list[str]) -> None:
    open_clip()
    from open_clip_train.main import main

    with _logging_as_before():
        try:
            main(arguments)
        except (RuntimeError, ValueError, KeyError, AssertionError, OSError) as error:
            raise ModelError(f"open_clip cannot train on the shards: {error}") from error


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """open_clip puts handlers on the root logger and sets the level of every logger there is."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    loggers = [root, *(logging.getLogger(name) for name in root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    try:
        yield
    finally:
        for handler in [one for one in root.handlers if one not in handlers]:
            root.removeHandler(handler)
            handler.close()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
