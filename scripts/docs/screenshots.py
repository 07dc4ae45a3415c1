"""Takes the screenshots of the documentation from the demo: python -m scripts.docs.screenshots

Runs the demo in a temporary folder, opens its pages in Chromium, light and dark, and writes docs/images.
At the end it breaks one of the WAT files and starts a second run, for the images of a failed partition.
It takes some five minutes and needs Chromium (CHROMIUM names it; default /usr/bin/chromium).
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from laion_etl.demo.airflow import AirflowApi
from laion_etl.demo.login import Login

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_LONGEST_S = 900
_ADDRESS = re.compile(r"Airflow: (http://[^/\s]+)/dags/")
_DAG = re.compile(r"/dags/(\S+)")
_DONE = re.compile("Airflow stays up")
_PASSWORD = re.compile(r"log in as admin with the password (\S+)")
_SEARCH = re.compile(r"(http://127\.0\.0\.1:\d+\S*)")
_WIDTH, _HEIGHT = 1280, 860
_BROKEN = 2  # the number of the last partition, whose last WAT file is broken


def main() -> None:
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with running(["demo", "--keep"], _DONE, {"LAION_ETL_DATA_DIR": folder}) as demo:
            for scheme in ("light", "dark"):
                _of_airflow(browser, demo, scheme)
            [report] = Path(folder, "demo/store/dataset").glob("*/*/report/index.html")
            config = {"LAION_ETL_CONFIG": f"{folder}/demo/laion_etl.toml"}
            with running(["search", "serve"], _SEARCH, config) as search:
                for scheme in ("light", "dark"):
                    page = _page(browser, scheme)
                    page.goto(f"file://{report}")
                    _save(page, f"report-{scheme}")
                    page.goto(_found(_SEARCH, search))
                    page.get_by_role("searchbox").fill("a red circle on a beach")
                    page.keyboard.press("Enter")
                    page.wait_for_load_state("networkidle")
                    _save(page, f"explore-{scheme}", "jpg")
            _fail_a_partition(demo, Path(folder, "demo"))
            for scheme in ("light", "dark"):
                _of_the_failure(browser, demo, scheme)
        browser.close()


@contextmanager
def running(
    arguments: list[str], until: re.Pattern[str], more: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a command of laion-etl; yields its output once that has `until`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAION_ETL_")}
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            command = [sys.executable, "-m", "laion_etl", *arguments]
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment | (more or {}), start_new_session=True
            )
        try:
            ends = time.monotonic() + _LONGEST_S
            while not until.search(log.read_text()):
                if process.poll() is not None or time.monotonic() > ends:
                    sys.exit(f"laion-etl {arguments[0]} did not get ready:\n{log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _of_airflow(browser: Any, demo: str, scheme: str) -> None:
    page, address, dag = _logged_in(browser, demo, scheme), _found(_ADDRESS, demo), _found(_DAG, demo)
    page.goto(f"{address}/dags/{dag}")
    page.evaluate("scheme => localStorage.setItem('theme', scheme)", scheme)
    page.reload()
    page.wait_for_load_state("networkidle")
    _save(page, f"airflow-grid-{scheme}")
    page.goto(f"{address}/laion/crawl/{dag.removeprefix('crawl_')}")
    page.wait_for_load_state("networkidle")
    _save(page, f"dashboard-crawl-{scheme}")


def _fail_a_partition(demo: str, folder: Path) -> None:
    """Run the DAG again after a WAT file has become an error page; its partition has to be parsed again."""
    dag = _found(_DAG, demo)
    crawl = dag.removeprefix("crawl_")
    for file in Path(folder, "store", "pairs", crawl).glob(f"part-{_BROKEN:05}.*"):
        file.unlink()
    *_, last = sorted(Path(folder, "minicrawl").rglob("*.wat.gz"))
    last.write_text("<html><title>403 Forbidden</title></html>\n")
    login = Login("admin", _found(_PASSWORD, demo), folder)
    airflow = AirflowApi(_found(_ADDRESS, demo), login, lambda: None)
    airflow.wait_until_healthy(_LONGEST_S)
    run = airflow.trigger(dag, crawl, {})
    ends = time.monotonic() + _LONGEST_S
    while (state := airflow.run_state(dag, run)) != "failed":
        if state == "success" or time.monotonic() > ends:
            sys.exit(f"the second run of {dag} should have failed: {state}")
        time.sleep(1)


def _of_the_failure(browser: Any, demo: str, scheme: str) -> None:
    """The panel of the failed partition, with what a retry would clear."""
    page, crawl = _logged_in(browser, demo, scheme), _found(_DAG, demo).removeprefix("crawl_")
    page.goto(f"{_found(_ADDRESS, demo)}/laion/crawl/{crawl}")
    page.get_by_role("button", name=f"partition {_BROKEN}: parse failed").click()
    panel = page.locator("#panel")
    panel.get_by_role("button", name="Retry").click()
    panel.get_by_role("button", name="Clear").wait_for()
    _save(page, f"dashboard-failed-{scheme}")


def _logged_in(browser: Any, demo: str, scheme: str) -> Any:
    page, address = _page(browser, scheme), _found(_ADDRESS, demo)
    page.goto(f"{address}/auth/login")
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(_found(_PASSWORD, demo))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"^{re.escape(address)}/(?!auth)"))
    return page


def _page(browser: Any, scheme: str) -> Any:
    context = browser.new_context(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme=scheme)
    context.set_default_timeout(120_000)
    return context.new_page()


def _save(page: Any, name: str, ending: str = "png") -> None:
    page.wait_for_timeout(1_500)  # images fade in
    quality = {"quality": 85} if ending == "jpg" else {}
    page.screenshot(path=str(IMAGES / f"{name}.{ending}"), **quality)
    print(f"docs/images/{name}.{ending}", flush=True)


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    if found is None:
        sys.exit(f"the output has no {pattern.pattern}:\n{text[-2000:]}")
    return found[1]


if __name__ == "__main__":
    main()
