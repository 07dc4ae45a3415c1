"""One DAG per known crawl; laion_etl/airflow/crawl_dag.py says what runs after what."""

from laion_etl.airflow import crawl_dags

globals().update(crawl_dags())
