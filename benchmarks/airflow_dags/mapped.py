"""Mapped tasks that do nothing: the cost of Airflow itself per task. For benchmarks/airflow.py only."""

from airflow.sdk import DAG, get_current_context, task


@task
def numbers() -> list[int]:
    """The number of mapped tasks that the run asks for."""
    return list(range(get_current_context()["params"]["tasks"]))


@task
def nothing(number: int) -> int:
    """Returns what it was given."""
    return number


with DAG("mapped", schedule=None, params={"tasks": 10}, max_active_tasks=64) as dag:
    nothing.expand(number=numbers())
