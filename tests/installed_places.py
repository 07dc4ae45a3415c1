"""Print, as JSON, where laion_etl and its SQL are: for the interpreter that runs this file."""

import json

import laion_etl
from laion_etl.database.queries import sql_folder

if __name__ == "__main__":
    places = {"package": laion_etl.__file__, "sql": sql_folder()}
    print(json.dumps({name: str(place) for name, place in places.items()}))
