"""The demo: the mini crawl through Airflow, from nothing to a published dataset and its report."""

from laion_etl.demo.demo import run_demo

__all__ = ["run_demo"]
