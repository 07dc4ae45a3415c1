"""The monthly DAG that finds and starts new crawls; see laion_etl/airflow/new_crawls_dag.py."""

from laion_etl.airflow import new_crawls_dag

dag = new_crawls_dag()
