"""The demo: the mini crawl through Airflow, from nothing to a published dataset and its report."""
