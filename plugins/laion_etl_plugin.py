"""Registers laion_etl's plugin in a checkout; an installed package does so by its entry point."""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="laion_etl"):
    from laion_etl.airflow.plugin import LaionEtlPlugin  # noqa: F401 - Airflow looks for it here
