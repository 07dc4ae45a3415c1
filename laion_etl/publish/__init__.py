"""Publish stage: scored shards become a dataset with a manifest, a card and a report."""
