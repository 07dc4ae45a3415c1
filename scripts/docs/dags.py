"""Makes docs/dags.md from the DAGs themselves: python -m scripts.docs.dags > docs/dags.md"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import date
from typing import Any

from laion_etl.crawl import Crawl
from laion_etl.settings import PublishSettings, Settings

_HEAD = """# DAGs, tasks and parameters

*For operators: what each DAG and task does, and what the fields of the form mean. Made by `make docs`.*
"""
_END = """
Next: [backfill](how-to/backfill.md), [failed partitions](how-to/failed-partition.md).
"""


def reference() -> str:
    """The page; imports Airflow."""
    from laion_etl.airflow.crawl_dag import crawl_dag
    from laion_etl.airflow.new_crawls_dag import new_crawls_dag

    known = Crawl("CC-MAIN-2024-38", "a crawl", date(2024, 9, 16))
    all_tasks = replace(Settings(), publish=replace(PublishSettings(), duplicates="near"))
    crawl = crawl_dag(known, all_tasks)
    lines = [
        _HEAD,
        *_dag(crawl, "crawl_ID, such as crawl_CC-MAIN-2024-38"),
        *_dag(new_crawls_dag(), "new_crawls"),
    ]
    return "\n".join(lines).rstrip("\n") + "\n" + _END


def _dag(dag: Any, name: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{dag.description}\n"
    yield "| field of the form | key in `conf` | default | section | meaning |\n|---|---|---|---|---|"
    yield from (_param(key, dag.params.get_param(key)) for key in dag.params)
    yield "\n| task | what it does |\n|---|---|"
    for task in dag.topological_sort():
        yield f"| `{task.task_id}` | {_first_paragraph(task)} |"
    yield ""


def _param(key: str, param: Any) -> str:
    schema: Mapping[str, Any] = param.schema
    default = "" if param.value in (None, "") else f"`{str(param.value).lower()}`"
    return f"| {schema['title']} | `{key}` | {default} | {schema.get('section', '')} | {param.description} |"


def _first_paragraph(task: Any) -> str:
    text = getattr(task, "doc_md", None) or task.partial_kwargs.get("doc_md") or ""
    return " ".join(text.strip().split("\n\n")[0].split())


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # Airflow logs there
        page = reference()
    print(page, end="")
