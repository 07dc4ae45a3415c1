"""Passwords of URLs are hidden in linear time, and as one expression would hide them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.core import hidden_secrets
from laion_etl.core.hidden_secrets import hide_parameters, hide_secrets

AS_ONE_EXPRESSION = re.compile(r"(://[^:/@\s]*):(?:(?!\w://)\S)*@")
PARTS = ("://", ":", "/", "@", "a", "b", " ", ",", "x://", "://u:", "p@h")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join))
def test_the_same_is_hidden_as_by_one_expression(text: str) -> None:
    assert hide_secrets(text) == hide_parameters(AS_ONE_EXPRESSION.sub(r"\1:***@", text))


class Counting:
    """An expression that counts the characters it reads."""

    def __init__(self, expression: re.Pattern[str]) -> None:
        self.expression, self.read = expression, 0

    def search(self, text: str, place: int) -> re.Match[str] | None:
        found = self.expression.search(text, place)
        self.read += (found.end() if found else len(text)) - place
        return found


@pytest.mark.parametrize("part", ["://:", "://u:", "x://u:p", "x://:", "a://b:c@d,", " ://:"])
def test_thousands_of_urls_are_read_a_few_times_each(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, counted = part * 5_000, []
    for name in ("_LOGIN", "_NEXT_URL"):
        counted.append(Counting(getattr(hidden_secrets, name)))
        monkeypatch.setattr(hidden_secrets, name, counted[-1])
    hide_secrets(text)
    assert 0 < sum(one.read for one in counted) <= 4 * len(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("PGPASSWORD=abc x", "PGPASSWORD=*** x"),
        ("AWS_SECRET_ACCESS_KEY=a/b+c", "AWS_SECRET_ACCESS_KEY=***"),
        ("HF_TOKEN=abc", "HF_TOKEN=***"),
        ("https://ghp_abc@host/a.git", "https://***@host/a.git"),
        ("s3+https://me:pa/ss@host/a", "s3+https://me:***@host/a"),
        ("postgresql://me:p@a/s:s@host/db", "postgresql://me:***@host/db"),
        ("https://me:12/3@host/a,https://b/c", "https://me:***@host/a,https://b/c"),
        ("http://one:80/a http://two/@b", "http://one:80/a http://two/@b"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("https://host/@name/a.jpg", "https://host/@name/a.jpg"),
        (
            "cannot post to https://hooks.slack.com/services/T0/B0/abc: 404",
            "https://hooks.slack.com/***: 404",
        ),
        ("{'Authorization': 'Bearer abcdefgh.ijk'}", "{'Authorization': 'Bearer ***'}"),
        ("token hf_abcdefghijklmnopqrstuvwxyz is old", "token hf_*** is old"),
        ("{'Authorization': 'AWS4-HMAC-SHA256 Credential=a/b, Signature=c'}", "AWS4-HMAC-SHA256 ***'}"),
        ("Authorization: Token abc", "Authorization: Token ***"),
        ("X-Vault-Token: abc", "X-Vault-Token: ***"),
        ("Cookie: _token=abc; b=c", "Cookie: _token=***"),
        ("AIRFLOW__API_AUTH__JWT_SECRET=abc", "JWT_SECRET=***"),
        ("AIRFLOW__CORE__FERNET_KEY=abc", "FERNET_KEY=***"),
        ("SLACK_TOKEN=abc", "SLACK_TOKEN=***"),
        ("ssl_key_password=abc", "ssl_key_password=***"),
        ('{"password": "a b", "user": "u"}', '{"password": ***, "user": "u"}'),
        ("{'aws_secret_access_key': 'a b'}", "{'aws_secret_access_key': ***}"),
        ("https://x/y?X%2DAmz%2DSignature=abc&z=1", "X%2DAmz%2DSignature=***&z=1"),
        ("https://x/y?a=b%3Ftoken%3Dabc", "token%3D***"),
        ("https://x/y?x-oss-signature=abc&z=1", "x-oss-signature=***&z=1"),
        ("https://x/y?hdnts=st=1~hmac=abc", "hdnts=st=1~hmac=***"),
        ("https://x/y?accessToken=abc&z=1", "accessToken=***&z=1"),
        ("AccountKey=abc==;EndpointSuffix=x", "AccountKey=***"),
        ("https://a.webhook.office.com/webhookb2/abc: 404", "https://a.webhook.office.com/***: 404"),
        ("https://api.telegram.org/bot1:abc/send", "https://api.telegram.org/bot***"),
        ("bad credentials: ghp_abcdefghijklmnop", "bad credentials: ghp_***"),
        ("xoxb-1234567890-abc", "xoxb-***"),
        ("session eyJhbGciOi.eyJhIjoxfQ.abc_def-g is over", "session eyJ*** is over"),
        (
            "design=1 tokens=3 oauth=4 key=5 keys=6",
            "design=1 tokens=3 oauth=4 key=5 keys=6",
        ),
        ("cannot import name 'hf_hub_download'", "cannot import name 'hf_hub_download'"),
        ("unexpected token: 5; no secret: 6", "unexpected token: 5; no secret: 6"),
        ("basic questions of bearer shares", "basic questions of bearer shares"),
    ],
)
def test_tokens_are_hidden_wherever_they_stand(text: str, shown: str) -> None:
    assert shown in hide_secrets(text)
