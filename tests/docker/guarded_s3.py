"""An S3 server that asks each key's policy first, as AWS does: a proxy before one that doesn't.

moto's reading of a policy decides, object by object. It has no prefixes of listings, so these are written as
resources: listing `laion/pairs/` of a bucket asks for `s3:ListBucket` on `bucket/laion/pairs/`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from moto.iam.access_control import IAMPolicy, PermissionResult

from tests.flaky_s3 import Fault, FlakyS3

_KEY = re.compile(r"Credential=([^/,]+)/")
_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}


class GuardedS3(FlakyS3):
    """Answers 403 to what the policy of a request's key does not allow; `refused` lists such requests.

    `policies` are by access key; a key without one may do nothing.
    """

    def __init__(self, endpoint: str, policies: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(endpoint, 0.0, 0, ())
        self.refused: list[str] = []
        self._policies = policies

    def fault(self, request: str, authorization: str) -> Fault | None:
        """ACCESS_DENIED if the policy says so."""
        action, resource = _asked(*request.split(" ", 1))
        found = _KEY.search(authorization)
        policy = self._policies.get(found[1] if found else "")
        if policy and allows(policy, action, resource):
            return None
        self.refused.append(f"{found and found[1]}: {action} {resource}")
        return Fault.ACCESS_DENIED


def _asked(method: str, path: str) -> tuple[str, str]:
    """The action and the resource of a request."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, name = unquote(parts.path).lstrip("/").partition("/")
    if not name:
        return "s3:ListBucket", f"arn:aws:s3:::{bucket}/{query.get('prefix', [''])[0]}"
    action = "AbortMultipartUpload" if method == "DELETE" and "uploadId" in query else _ACTIONS.get(method)
    return f"s3:{action or 'PutObject'}", f"arn:aws:s3:::{bucket}/{name}"


def allows(policy: Mapping[str, Any], action: str, resource: str) -> bool:
    """Whether a policy allows an action; a request that names no prefix passes `IfExists`."""
    statements = []
    for statement in policy["Statement"]:
        if prefixes := statement.get("Condition", {}).get("StringLikeIfExists", {}).get("s3:prefix"):
            (bucket,) = statement["Resource"]
            resources = [f"{bucket}/{prefix}" for prefix in ("", *prefixes)]
            statements.append(
                {k: v for k, v in statement.items() if k != "Condition"} | {"Resource": resources}
            )
        else:
            statements.append(statement)
    read = IAMPolicy(json.dumps({**policy, "Statement": statements}))
    return read.is_action_permitted(action, resource) is PermissionResult.PERMITTED
