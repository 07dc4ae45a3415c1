"""Secrets are hidden however they are written, in linear time, and plain words are not."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.alerts.alert import Alert, Kind
from laion_etl.core import hidden_secrets
from laion_etl.core.errors import InputError
from laion_etl.core.hidden_secrets import hide_parameters, hide_secrets
from laion_etl.core.rule_failures import described

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


WRITTEN = "Zq7xW2vR9kL4mN8p"
# Ways to write @, by two spaces from each other.
WAYS = r"""
password: @  Password: @.  passwd: @  pwd: @  api key: @  API-Key: '@'  access token: @  password=/@  pwd=@
Pwd=@;Uid=me  MYSQL_PWD=@  DB_PASS=@  passcode=@  authkey=@  otp=@  token: @  secret: @  signature: @
token is @
password is @  password for user me: @  --password @  --api-key @  --token '@'  -token @  --pass @
--password=@
curl -u me:@ https://h/  curl --user 'me:@' https://h/  login me password @  password '@'  identified by "@"
<password>@</password>  <db:Password>@</db:Password>  'password': @  "pwd": "@ @"  {'key': '@'}
{\"password\": \"@ @\"}  password => @  password := @  password -> @  password%3D@  key=@  pass=@  pass: @
session=@  code=@  PHPSESSID=@  sas=@  master_key=@  signing-key: @  private_key_id: @  SharedAccessKey=@
//registry/:_authToken=@  https://h/x?key=ab@  https://h/x?a=b&key=@  https://h/?u=%3Fkey%3D@
https://h/?session=@
Bearer @  bearer @  Basic @  Authorization: @  Proxy-Authorization: Basic @  X-Goog-Api-Key: @  X-Auth-Key: @
Ocp-Apim-Subscription-Key: @  Set-Cookie: session=@; path=/  AKIAABCDEFGH23456789@  sk-@@  sk-proj-@@
sk_live_@
npm_@@  pypi-AgEI@  dop_v1_@  SG.@.@  hvs.@@  glsa_@  ya29.@  GOCSPX-@  AGE-SECRET-KEY-1@  xapp-1-@  glrt-@
dckr_pat_@  wandb_v1_@  whsec_@  https://chat.example.org/hooks/@  https://h/mm/hooks/@: 404
https://h/hooks/abcdef/@  https://h/webhook/@  https://maker.ifttt.com/trigger/x/with/key/@
https://maker.ifttt.com/trigger/x/json/with/key/@  https://canary.discord.com/api/webhooks/1/@
https://hc-ping.com/@  https://ntfy.sh/@  https://webhook.site/@  https://hook.eu1.make.com/@
https://open.feishu.cn/open-apis/bot/v2/hook/@  https://prod-1.logic.azure.com:443/workflows/@/triggers
https://h/api/v1/heartbeat/@
"""
PLAIN = r"""
sort key=url  sort key=url_id  public key: abc  public key: Zq7xW2vR9kL4mN8p  primary key: (url)  key: 5
unknown key=caption; give one of  violates unique constraint "images_key"  KeyError: 'caption'
key=batches/part-00001.parquet  object key=crawl=CC-MAIN-2026-05/part-3.parquet  key: CC-MAIN-2026-05
password authentication failed for user me  no password supplied  the password is wrong  password: not set
cannot log in: password: missing; set LAION_ETL_DATABASE_URL  PASSWORD: none  set --password or --token
--password is not an option  --token TEXT  give --key-file PATH  unexpected token: 5  token: '}'  tokens=3
unexpected token: STRING  token: expected string  secret: not set  signature: (a, b) -> c
signature version: 4  exit code: 0xC0000005x  error code: SQLSTATE42P01
s3://b/p/key=a1b2c3d4e5/part.parquet does not exist  glam-00001-of-00002.tar  glue-catalog1x2y3
credentials: see docs  auth: none  pass=3  pass: 2  pass 3 of 5  passed: 5  compass=5  code=404
status code: 503  session: 5  pwd: /root/x  PWD=/root/x  OLDPWD=/x  password_file=/run/secrets/x
passwordless=1  monkey=a  Bearer token is missing  basic questions  docker run -u 1000:1000 x
mkdir -p a1b2c3d4e5f6g7h8  https://h/hooks/use-state  https://react.dev/hooks/useState
https://h/img/hooks/fish1x2y3z4.jpg  -----BEGIN CERTIFICATE-----  -----BEGIN PRIVATE KEY-----, twice
sk-learn-is-not-a-token
"""


def texts(table: str) -> list[str]:
    return re.split(r"\n|  ", table.strip())


@pytest.mark.parametrize("written", [WRITTEN, "7" + WRITTEN[::-1], "abcdefghij0123456789"])
def test_secrets_are_hidden_however_they_are_written(written: str) -> None:
    shown = {text: hide_secrets(text.replace("@", written)) for text in texts(WAYS)}
    assert not {text: found for text, found in shown.items() if "***" not in found or written in found}
    assert not {text: found for text, found in shown.items() if hide_secrets(found) != found}
    assert hide_secrets("key=q1w2e3r4, pass=hunt3r, auth: a1b2c3") == "key=***, pass=***, auth: ***"


def test_plain_words_are_not_hidden() -> None:
    assert [hide_secrets(text) for text in texts(PLAIN)] == texts(PLAIN)


@pytest.mark.parametrize("end", ["\n", r"\n", " ", "\r\n"])
@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH "])
def test_private_keys_are_hidden(kind: str, end: str) -> None:
    begin, last = f"-----BEGIN {kind}PRIVATE KEY-----", f"-----END {kind}PRIVATE KEY-----"
    lines = [begin, "MIIEvQ", WRITTEN, last, "and so on"]
    assert hide_secrets(end.join(lines)) == f"{begin}***{last}{end}and so on"
    assert hide_secrets(end.join(lines[:-2])) == f"{begin}***", "one that is cut off"


def test_no_way_out_of_an_error_shows_its_secrets() -> None:
    told = "cannot log in: https://me:hidden@h/hooks/a1b2c3d4e5 has password: hidden"
    shown = "cannot log in: https://me:***@h/hooks/*** has password: ***"
    assert str(InputError(told)) == f"{InputError(told)}" == shown, "of reports, pages, records and tasks"
    assert described(ValueError(told)) == f"ValueError: {shown}"
    alert = Alert(Kind.FAILED, "C", "run", reason=told, command=told, details=(told,)).cleaned()
    assert (alert.reason, alert.command, alert.details) == (shown, shown, (shown,))


@pytest.mark.parametrize(
    "part",
    ["password", "password ", "password='", 'password: \\"', "token_", "-", "...-", "--password ", "-u a",
     "a/", "key=a", "key=aaaaaaaaaaa-", "x-", "<password>", "?key=", "login a ", "bearer a", "eyJ.eyJ",
     "hooks/", "\\", "-----BEGIN PRIVATE KEY-----", "://h/hooks/", "://h/", "password: ;", "pwd=/",
     "cookie: a", " "],
)  # fmt: skip
def test_ten_times_the_text_takes_some_ten_times_the_work(part: str) -> None:
    """Of CPU time, in which other processes do not count; reading on from each place would take 100 times."""

    def work(characters: int) -> int:
        text = part * (characters // len(part))
        took = []
        for _ in range(2):
            began = time.thread_time_ns()
            hide_secrets(text)
            took.append(time.thread_time_ns() - began)
        return min(took)

    hide_secrets(part)
    assert work(10_000) < 30 * work(1_000)
