"""Which failures of a task are final: their tasks end at the first try, whatever their `retries`."""

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from laion_etl.core.errors import SettingsError


class FinalError(AirflowException):
    """A command failed in a way that a retry without any other change cannot mend."""


_FINAL: list[type[BaseException] | str] = [FinalError, SettingsError, AirflowNotFoundException]

# For `retry_policy=` of tasks. AirflowNotFoundException: a connection that the settings name does not exist.
RETRY_POLICY = ExceptionRetryPolicy(
    [RetryRule(_FINAL, RetryAction.FAIL, reason="a retry without any other change cannot help")]
)


def retry_helps(error: object) -> bool:
    """Whether a retry without any other change could succeed."""
    if isinstance(error, AirflowFailException):
        return False
    return not any(isinstance(error, BaseException) and rule.matches(error) for rule in RETRY_POLICY.rules)
