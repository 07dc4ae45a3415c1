"""Print, as JSON, where laion_etl is, its SQL and its DAG files: for the interpreter that runs this file."""

import json

import laion_etl
from laion_etl.database.queries import sql_folder
from laion_etl.demo.demo import sources_of_dags

if __name__ == "__main__":
    places = {"package": laion_etl.__file__, "sql": sql_folder(), "airflow": sources_of_dags()}
    print(json.dumps({name: str(place) for name, place in places.items()}))
