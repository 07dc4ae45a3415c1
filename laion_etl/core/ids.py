"""Limits of batch and sample numbers, for modules that must not import pyarrow: settings, which DAGs load."""

MAX_BATCH_PAIRS = 100_000  # the number of a sample within its batch has five digits
