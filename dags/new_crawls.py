"""The monthly DAG that finds and starts new crawls: laion_etl/airflow/new_crawls_dag.py."""

from laion_etl.airflow.new_crawls_dag import dag

__all__ = ["dag"]
