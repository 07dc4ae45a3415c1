"""Print, as JSON, what Airflow finds in its folders and by entry points: for the interpreter that runs it."""

import json

from airflow import plugins_manager
from airflow.dag_processing.dagbag import DagBag

if __name__ == "__main__":
    bag = DagBag()
    shown = ("source", "external_views", "timetables")
    plugins = {one["name"]: one for one in plugins_manager.get_plugin_info(shown)}
    ours = plugins.pop("laion_etl")
    parts = {
        "dags": sorted(bag.dags),
        "timetables": ours["timetables"],
        "pages": [view["url_route"] for view in ours["external_views"]],
        "deadlines": sorted(plugins_manager.get_deadline_references_plugins()),
        "source": str(ours["source"]),
        "others": sorted(name for name in plugins if "laion" in name),
        "errors": {**bag.import_errors, **plugins_manager.get_import_errors()},
    }
    print(json.dumps(parts))
