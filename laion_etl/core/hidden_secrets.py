"""Text for terminals, logs and alerts without the passwords, tokens and signatures in it.

Too much hidden costs a word of a message, too little a password. So the values of names that only secrets
have (`password`, `api key`) are hidden however they are written, except for words that a sentence goes on
with (`password: missing`). Names that sentences have, too (`token: 5`, `sort key=url`), hide only values with
digits among letters, or what is a parameter of a URL.

No expression reads a text more than a few times: each begins where a word does, and looks ahead over a
bounded number of characters, or over what it then hides.
"""

import re
from functools import cache

# Names that only secrets have. $PWD is a folder.
_SURE = r"""
password|passwd|passphrase|passcode|(?<=[_-])pass
|(?<![a-z])(?:db)?pwd(?!['"]?\s*[=:]\s*['"]?(?:[a-z]:\\|[/~.])[\w/.~-]*['"]?(?:\s|\Z))
|(?:secret|api|account|private|fernet|subscription|encryption|master|signing|shared|auth|routing|ssh)[_ -]?
(?:access[_ -]?)?key(?:[_-]?id)?|access[_ -]?key(?:[_-]?id)?
|(?:access|refresh|auth|bearer|bot|api)[_ -]?token|client[_ -]?secret
"""
# Names of parameters of libpq, of URLs that storage services sign, of environment variables and of keys of
# JSON, which end in these words.
_NAME = rf"""
[\w.%-]*(?:{_SURE}|token_*|secret|signature|(?<![a-z])(?:sig|sas|otp|auth)|hmac|jwt|credentials?
|sess(?:ion_?)?id|key-pair-id)
"""
_QUOTED = r"""(?:\\+"[^"\n]*"|\\+'[^'\n]*'|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_WORD = rf"""(?:{_QUOTED}|[^\s,'"<>(){{}}\[\]][^\s,'"]*?(?=[;:.)\]}}]{{0,3}}(?:[\s,'"]|\Z)))"""
# What a sentence goes on with behind a name, and what help shows for a value.
_NOT_PLAIN = r"""
(?!(?:an?|the|it|its|this|that|which|no|not|none|null|nil|true|false|is|are|was|were|has|have|had|must|may|can
|cannot|could|should|will|would|does|did|or|and|of|to|for|from|in|on|at|by|as|with|without|if|but|then|than
|too|only|set|unset|missing|wrong|bad|invalid|incorrect|required|empty|expired|unknown|unreadable|denied
|refused|rejected|failed|given|needed|needs|requires|takes|expected|unexpected|authentication|see|use|give
|check|option|str|bytes|string|text|file|name|value|path)[;:.,)'"\]]{0,3}(?:\s|\Z))
"""
_SCHEME = r"(?:bearer|basic|token|apikey|digest|aws4-hmac-sha256)\s"
# Digits among letters, at once and in a run of letters and digits further on.
_MADE = r"(?=[A-Za-z+/_-]{0,99}[0-9])(?=[0-9+/_-]{0,99}[A-Za-z])"
_RUN = r"[\w-]{0,99}(?<![A-Za-z0-9])(?=[A-Za-z]{0,99}[0-9])(?=[0-9]{0,99}[A-Za-z])[A-Za-z0-9]"

# In each of these, the group in front of the secret stays.
_PARAMETER = rf"""
((?<![\w.%-]){_NAME}(?:\s*(?:=>?|:=|%3D)\s*|\\*['"]\s*:\s*(?=\\*['"])))(?:{_QUOTED}|(?:[^&\s,]|,(?!\w+://))+)
"""
_BEHIND_NAMES = (
    # password: x, "password": x, password for user me: x, password -> x
    rf"""((?<![\w.%-])[\w.%-]*(?:{_SURE}|(?<![a-z-])(?:proxy-)?authorization)\\*['"]?
    (?:\s+for\s+(?:user\s+)?['"]?[\w.@-]{{1,63}}['"]?)?\s*(?::(?!=)|->)\s*)
    (?!['"]?{_SCHEME}){_NOT_PLAIN}{_WORD}""",
    # --password x, -token x
    rf"""((?<![\w.%-])--?(?:{_NAME}|pass)\s+)(?!-){_NOT_PLAIN}{_WORD}""",
    # -u name:password of curl; not user and group of other commands, which are numbers
    r"""((?<![\w-])(?:-u|--user|--proxy-user)[\s=]\s*['"]?[^\s:'"/]{1,99}:)(?![0-9/]+(?:\s|\Z))[^\s'"]+""",
    # of .netrc, SQL and XML
    rf"(\blogin\s+\S{{1,99}}\s+password\s+){_NOT_PLAIN}{_WORD}",
    rf"(\b(?:password|identified\s+by)\s+){_QUOTED}",
    rf"(<[\w:.-]*(?:{_SURE}|token|secret)>)[^<]+(?=</)",
    # parameters of URLs whose names are words elsewhere
    r"""((?:[?&]|%3F|%26)(?:key|pass|session|sid|sign)(?:=|%3D))[^&\s,'"\#]+""",
    # token: x, pass=x, password is x
    rf"""((?<![\w.%-])[\w.%-]*(?:{_SURE}|token|secret|signature|credentials?|(?<![a-z])(?:auth|pass|otp)|hmac|jwt)
    (?:\s*[:=]\s*|\s+is\s+)\\*['"]?){_MADE}[\w+/=~.!@\#$%^*-]{{6,}}""",
    rf"""((?<![\w.%/-])(?:(?<!exit\s)(?<!error\s)(?<!status\s)code|session|(?<!public\s)key)
    \\*['"]?\s*[=:]\s*\\*['"]?)(?={_RUN}{{8}})[^&\s,'"]+""",
    rf"(\b(?:bearer|basic)\s+){_MADE}[\w.~+/=-]{{8,}}",
)
# Addresses whose path lets anyone post; of servers that anyone may run, where it has digits among letters.
_WEBHOOK = rf"""
(//hooks\.slack\.com/|//(?:\w+\.)?discord(?:app)?\.com/api/webhooks/|//hooks\.zapier\.com/hooks/catch/
|//[\w-]+\.webhook\.office\.com/|//outlook\.office(?:365)?\.com/webhook/|//api\.telegram\.org/bot
|//events\.pagerduty\.com/integration/|//maker\.ifttt\.com/trigger/[^\s/'",]{{1,99}}/(?:json/)?with/key/
|//(?:hc-ping\.com|ntfy\.sh|webhook\.site|hook\.[\w.]{{1,20}}\.?make\.com)/
|//open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/
|://[^\s'",?\#/]{{1,300}}/(?:[^\s'",?\#/]{{1,99}}/){{0,9}}?(?:(?:web)?hooks?|workflows|powerautomate|heartbeat)/
(?=(?:[\w-]{{1,99}}/){{0,3}}{_RUN}{{8}}(?!\w{{0,99}}\.)))[^\s'",]*[^\s'",:]
"""
# Headers of a request.
_HEADER = rf"""
(\b(?:authorization['"]?\s*[:=]\s*['"]?{_SCHEME}
|x-(?:api-key|auth-token|vault-token|amz-security-token)['"]?\s*[:=]
|cookie['"]?\s*:\s*['"]?[\w.-]{{1,99}}=)\s*)[^\s'",;]+(?:[,;][ ][^\s'",;]+)*
"""
# Tokens with a form of their own: of Hugging Face, GitHub, GitLab, Slack, Google, AWS, PyPI and others,
# signed ones (JWT), and keys of age.
_FORMED = (
    r"\b(hf_(?=[A-Za-z0-9]{10})|gh[pousr]_|github_pat_|gl(?:pat|ptt|rtr?|dt|cbt|ft|soat|imt|agent|oas|ffct)-"
    r"(?=\w{0,19}[0-9])|xox[abeprs]-|xapp-|AIza"
    r"|ya29\.|GOCSPX-|A[KS]IA(?=[A-Z0-9]{12})|pypi-Ag|dapi(?=[0-9a-f]{16})|(?:npm|dckr_pat|dop_v1|glsa|wandb_v1"
    r"|[rs]k_(?:live|test)|whsec|gsk)_|sk-(?=[\w-]{0,40}[0-9])|SG\.(?=[\w-]{16})|hv[sb]\.|AGE-SECRET-KEY-1"
    r"|eyJ(?=[\w-]{5,300}\.eyJ))[\w.-]{10,}"
)
# What follows the first line of a private key; where its end is missing, all the rest of the text.
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)(?=\s|\\+[nr]|[\w+/=]{8})(?:[^-]|-(?!----))*"
)
_TOKEN_LOGIN = re.compile(r"(https?://)[^:/@\s?#]+@", re.IGNORECASE)  # where a name alone is no login
# `user:password@` of a URL, up to the last @ before the next one: an unescaped password may have any sign.
# So what follows a port is hidden up to an @, too.
_LOGIN, _NEXT_URL = re.compile(r"://[^:/@\s]*:"), re.compile(r"\w://|\s|\Z")


def hide_parameters(text: str) -> str:
    """Return the text with *** for the values of secret parameters."""
    return _compiled(_PARAMETER).sub(r"\1***", text)


def hide_secrets(text: str) -> str:
    """Return the text with *** for passwords, tokens, private keys and addresses of webhooks."""
    return "\n".join(map(_hide_in_line, _PRIVATE_KEY.sub(r"\1***", text).split("\n")))


def _hide_in_line(text: str) -> str:
    text = _TOKEN_LOGIN.sub(r"\1***@", _hide_logins(text))
    text = _compiled(_HEADER).sub(r"\1***", _compiled(_WEBHOOK).sub(r"\1***", text))
    text = _compiled(_FORMED, re.NOFLAG).sub(r"\1***", text)
    for names in _BEHIND_NAMES:
        text = _compiled(names).sub(r"\1***", text)
    return hide_parameters(text)


@cache
def _compiled(expression: str, flags: re.RegexFlag = re.IGNORECASE | re.VERBOSE) -> re.Pattern[str]:
    """Compiles an expression on first use: no start of a command waits for it."""
    return re.compile(expression, flags)


def _hide_logins(text: str) -> str:
    """Return the text with *** for the passwords of its URLs.

    One expression would read the rest of the text again from each `://`: thousands took minutes.
    """
    parts, written, place = [], 0, 0
    while (login := _LOGIN.search(text, place)) is not None:
        following = _NEXT_URL.search(text, login.end())
        end = following.start() if following else len(text)
        at = text.rfind("@", login.end(), end)
        if at >= 0:
            parts += [text[written : login.end()], "***"]
            written = place = at
        else:  # a login that begins in front of the next URL may end in it
            last = text.rfind("://", login.start() + 1, end)
            place = last if last >= 0 else end
    return "".join((*parts, text[written:]))
