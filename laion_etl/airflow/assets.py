"""The products of a crawl as assets, which other DAGs can wait for.

`schedule=Asset("laion_dataset", uri="x-laion-etl://dataset")`, with exactly this URI, because Airflow
identifies assets by it. All crawls share them; the event names the crawl and the location of the result.
"""

from airflow.sdk import Asset, Context
from airflow.sdk.execution_time.context import InletEventsAccessor

from laion_etl.airflow.alerts import crawl_of

PAIRS = Asset("laion_pairs", uri="x-laion-etl://pairs")
SHARDS = Asset("laion_shards", uri="x-laion-etl://shards")
DATASET = Asset("laion_dataset", uri="x-laion-etl://dataset")
_EVENTS_READ = 1_000  # latest events of an asset, of all crawls


def produced(asset: Asset, context: Context, **what: str | int) -> None:
    """Send an asset event for the product of the run's crawl, unless the crawl's last event is the same.

    The last event decides, not whether this try did the work: a try that was killed between its work and its
    end has sent no event.
    """
    extra = {"crawl": crawl_of(context["ti"].dag_id), **what}
    earlier = InletEventsAccessor(asset.name, asset.uri).ascending(False).limit(_EVENTS_READ)
    extras = (event.extra or {} for event in earlier)
    last = next((found for found in extras if found.get("crawl") == extra["crawl"]), None)
    if last == extra:
        nothing_produced(asset, context)
    else:
        context["outlet_events"][asset].extra = {**extra}


def nothing_produced(asset: Asset, context: Context) -> None:
    """Suppress the event that Airflow sends for each outlet of a successful task."""
    task = context["task"]
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]
