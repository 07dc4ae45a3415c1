"""The dashboard as a command: it serves on loopback until it is stopped."""

import os
import re
import signal
import subprocess
import sys

import httpx

from laion_etl.settings import Settings


def test_it_serves_on_loopback_until_it_is_asked_to_end(crawl_settings: Settings) -> None:
    environment = {
        **os.environ,
        "LAION_ETL_DATA_DIR": crawl_settings.core.data_dir,
        "LAION_ETL_DATABASE_URL": crawl_settings.core.database_url,
    }
    command = [sys.executable, "-m", "laion_etl", "dashboard", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            match = re.search(r"(http://127\.0\.0\.1:\d+/[\w-]+/)\?token=\S+", process.stdout.readline())
            assert match
            with httpx.Client(timeout=240, follow_redirects=True) as client:
                assert client.get(match[1]).status_code == 401
                assert "<h1>Crawls</h1>" in client.get(match[0]).text
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(240)
    assert code == 130
