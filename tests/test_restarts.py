"""Limits of restarts within a try of a task, and the waits before them."""

import pytest

from laion_etl.airflow.restarts import DAY_S, LimitReachedError, Restarts, in_words


def test_restarts_are_limited_within_a_day_not_over_all() -> None:
    restarts = Restarts()
    for moment in (0.0, 10.0, 20.0):
        restarts = restarts.another(moment, limit=3)
    with pytest.raises(LimitReachedError, match=r"3 times within 24 hours.*LAION_ETL_TASK_RESTARTS"):
        restarts.another(30.0, limit=3)
    assert restarts.another(DAY_S + 15, limit=3).started_at == (20.0, DAY_S + 15)


def test_restarts_can_be_turned_off() -> None:
    with pytest.raises(LimitReachedError, match="turned off"):
        Restarts().another(0.0, limit=0)


def test_the_limit_of_refusals_is_the_time_since_the_first_of_a_row() -> None:
    refused = Restarts().refused(100.0, limit_s=60).refused(150.0, limit_s=60)
    assert (refused.refused_since, refused.refusals) == (100.0, 2)
    with pytest.raises(LimitReachedError, match="LAION_ETL_KUBERNETES_CREATE_TIMEOUT_S"):
        refused.refused(160.0, limit_s=60)
    assert refused.accepted().refused(160.0, limit_s=60).refused_since == 160.0


def test_waits_double_within_an_hour_up_to_ten_minutes_and_vary() -> None:
    restarts = Restarts()
    for number, expected_s in enumerate((30, 60, 120, 240, 480, 600, 600)):
        restarts = restarts.another(float(number), limit=100)
        waits = {restarts.restart_delay_s(30) for _ in range(20)}
        assert len(waits) > 1
        assert all(0.5 * expected_s <= wait <= 1.5 * expected_s for wait in waits)
    assert restarts.another(10_000.0, limit=100).restart_delay_s(30) <= 45


def test_what_a_try_has_spent_survives_being_deferred() -> None:
    restarts = Restarts().another(5.0, limit=3).refused(6.0, limit_s=60).waited(7.5).worked(2.5)
    assert Restarts.from_plain(restarts.to_plain()) == restarts
    assert Restarts.from_plain(None) == Restarts()
    assert (restarts.now_s, restarts.refused_s) == (10.0, 4.0)


@pytest.mark.parametrize(("seconds", "words"), [(42.4, "42 s"), (720, "12 min"), (86_400, "24.0 h")])
def test_durations_are_written_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
