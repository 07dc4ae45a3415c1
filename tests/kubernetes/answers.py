"""Error answers of the API server: Status objects with its own messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """What is wrong with one field of an object."""

    field: str
    reason: str  # FieldValueInvalid, FieldValueRequired, ...
    message: str


@dataclass(slots=True)
class ApiError(Exception):
    """A request that is answered with a Status object."""

    code: int
    reason: str
    message: str
    causes: Sequence[Cause] = ()
    retry_after_s: int | None = None

    def status(self) -> Json:
        """The body of the answer."""
        causes = [{"reason": c.reason, "message": c.message, "field": c.field} for c in self.causes]
        details: Json = {"causes": causes} if causes else {}
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def not_found(what: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{what} "{name}" not found')


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def invalid_pod(name: str, causes: Sequence[Cause]) -> ApiError:
    complaints = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
    return ApiError(422, "Invalid", f'Pod "{name}" is invalid: {complaints}', causes)
