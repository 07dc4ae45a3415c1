"""A process for each device; two CPUs stand in for GPUs. The processes are forks that have imported torch."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.core.errors import KilledError, ModelError, OutageError, RefusedError
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import Fault, MissingBatch
from laion_etl.io.storage import LocalStore
from laion_etl.score import multi_gpu
from laion_etl.score.devices import check_device, devices
from laion_etl.score.multi_gpu import failure, run_processes, score_everywhere
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings
from tests.score.conftest import (
    CRAWL,
    TINY,
    TINY_SETTINGS,
    TOOLS,
    fitting,
    scored_files,
    set_environment,
    write_shard,
)
from tests.score.test_stage import HEART, MOON, STAR

TWO = replace(TINY_SETTINGS, clip=replace(TINY, device="cpu,cpu"))


def shards(folder: Path) -> LocalStore:
    store = LocalStore(folder)
    for batch, scene in enumerate((STAR, HEART, MOON)):
        write_shard(store, [fitting(scene), fitting(STAR)], batch)
    return store


def test_devices_are_named_or_found() -> None:
    assert devices(ClipSettings(device="cuda:0, cuda:2")) == ["cuda:0", "cuda:2"]
    assert devices(ClipSettings(device="cpu")) == ["cpu"]
    assert devices(ClipSettings(device="auto"))


@pytest.mark.parametrize("name", ["meta", "mps", "foo", "lazy", "privateuseone", "cuda:300"])
def test_a_device_that_cannot_compute_here_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"LAION_ETL_CLIP_DEVICE='{name}': .*; use one of auto, cpu"):
        check_device(name)


@pytest.mark.usefixtures("forked_scoring")
def test_two_processes_give_the_files_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = shards(tmp_path / "alone")
    expected = score_shards(CRAWL, [0, 1, 2], TINY_SETTINGS, alone, tools=TOOLS)
    together = shards(tmp_path / "together")
    set_environment(monkeypatch, tmp_path / "together")
    seen: list[StageStats] = []
    missing: list[MissingBatch] = []
    counted: list[StageStats] = []
    done = score_everywhere(CRAWL, [0, 1, 9, 2], TWO, together, seen.append, missing.append, counted.append)
    assert done == expected == seen
    counts = [(one.unit, one.fingerprint, one.input, one.kept, one.dropped) for one in expected]
    assert sorted((one.unit, one.fingerprint, one.input, one.kept, one.dropped) for one in counted) == counts
    assert [(one.batch, one.cause) for one in missing] == [(9, Fault.NOT_DOWNLOADED)]
    assert scored_files(together) == scored_files(alone)


@pytest.mark.usefixtures("forked_scoring")
def test_a_device_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = shards(tmp_path)
    set_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("LAION_ETL_CLIP_MODEL", "no-such-model")
    with pytest.raises(ModelError, match=r"cannot score on cpu, cpu: cpu: .*no-such-model"):
        score_everywhere(CRAWL, [0, 1, 2], TWO, store)
    assert capfd.readouterr().err.count("error: ") == 2, "what the processes print is passed on"
    assert store.list("score") == [], "it says nothing about the shards"


def test_an_outage_of_a_device_is_an_outage_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = tmp_path / "python"
    process.write_text("#!/bin/sh\nexit 75\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    with pytest.raises(OutageError, match="cannot score on cpu, cpu"):
        score_everywhere(CRAWL, [0, 1, 2], TWO, LocalStore(tmp_path / "store"))


def test_a_process_that_was_killed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is progress, not the cause."""
    process = tmp_path / "python"
    process.write_text("#!/bin/sh\necho 3 of 7 >&2\nkill -9 $$\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    with pytest.raises(
        KilledError, match=r"cpu: its process was killed \(SIGKILL\), most often because"
    ) as ended:
        score_everywhere(CRAWL, [0, 1, 2], TWO, LocalStore(tmp_path / "store"))
    assert "3 of 7" not in str(ended.value)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("exit 3", "its process ended with exit code 3 and without a message"),
        ("kill -SEGV $$", "its process ended with SIGSEGV and without a message"),
    ],
)
def test_a_process_that_ends_without_a_message_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, cause: str
) -> None:
    process = tmp_path / "python"
    process.write_text(f"#!/bin/sh\n{end}\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    with pytest.raises(ModelError, match=f"cannot score on cpu: cpu: .*{cause}"):
        run_processes(CRAWL, [1], ["cpu"])


def test_a_process_that_a_signal_has_ended_can_be_started_again() -> None:
    ended = failure([("cpu", -signal.SIGTERM, "")])
    assert isinstance(ended, OutageError)
    assert "with SIGTERM and without a message; run the same command again" in str(ended)


def test_a_signal_to_a_process_that_starts_waits_until_it_handles_signals(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in a terminal is for all processes; Python would end one that starts with a traceback."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "interrupting_site"))
    with pytest.raises(OutageError, match="cannot score on cpu: cpu: stopped; run the same command again"):
        run_processes(CRAWL, [1], ["cpu"])
    assert capfd.readouterr().err == "error: stopped; run the same command again to continue\n"


def test_what_a_head_prints_is_passed_on_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = {"unit": "000000001", "fingerprint": "f", "input": 3, "kept": 2, "dropped": {"low": 1}}
    strange = ["loading 100%", "[1]", '{"loss": 0.5}', '{"scored": 7}', "[" * 5_000]
    printed = [*strange, json.dumps({"scored": counts}), json.dumps({"missing": []}), "bye"]
    (tmp_path / "printed").write_text("\n".join(printed) + "\n")
    process = tmp_path / "python"
    process.write_text(f"#!/bin/sh\ncat '{tmp_path}/printed'\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    scored: list[StageStats] = []
    assert run_processes(CRAWL, [1], ["cpu"], scored.append) == []
    assert [(one.unit, one.input, one.kept) for one in scored] == [("000000001", 3, 2)]
    assert capfd.readouterr().err.splitlines() == [*strange, "bye"]


def test_a_process_without_a_result_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = tmp_path / "python"
    process.write_text("#!/bin/sh\nexit 0\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    with pytest.raises(ModelError, match="cannot read the result of a score process: it printed none"):
        run_processes(CRAWL, [1], ["cpu"])


def test_what_no_device_is_allowed_to_do_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = tmp_path / "python"
    process.write_text("#!/bin/sh\nexit 2\n")
    process.chmod(0o755)
    monkeypatch.setattr(multi_gpu, "PROGRAM", (str(process),))
    with pytest.raises(RefusedError, match="cannot score on cpu, cpu") as ended:
        score_everywhere(CRAWL, [0, 1, 2], TWO, LocalStore(tmp_path / "store"))
    assert ended.value.exit_code == 2
