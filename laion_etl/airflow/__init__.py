"""The crawls in Airflow: DAGs, operators, pods, alerts, pages. No other package of laion_etl imports it."""
