"""What must never be in a dataset. Below the stages, because parse, download and publish all need it."""
