"""Text for terminals, logs and alerts without the passwords, tokens and signatures in it."""

import re

# Names of parameters of libpq, of URLs that storage services sign, of environment variables and of keys of
# JSON, which end in these words.
_NAME = r"""
[\w.%-]*(?:password|passwd|passphrase|token_*|secret|signature|(?<![a-z])sig|hmac|jwt|credentials?
|(?:secret|api|account|private|fernet|subscription)[_-]?(?:access[_-]?)?key|access[_-]?key(?:[_-]?id)?
|(?<![a-z])auth|session_?id|key-pair-id)
"""
_PARAMETER = re.compile(
    rf"""(?<![\w.%-])({_NAME})(\s*(?:=|%3D)\s*|['"]\s*:\s*(?=['"]))"""
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?:[^&\s,]|,(?!\w+://))+)""",
    re.IGNORECASE | re.VERBOSE,
)
_TOKEN_LOGIN = re.compile(r"(https?://)[^:/@\s?#]+@", re.IGNORECASE)  # where a name alone is no login
# Addresses whose path lets anyone post.
_WEBHOOK = re.compile(
    r"(//hooks\.slack\.com/|//discord(?:app)?\.com/api/webhooks/|//hooks\.zapier\.com/hooks/catch/"
    r"|//[\w-]+\.webhook\.office\.com/|//outlook\.office(?:365)?\.com/webhook/|//api\.telegram\.org/bot"
    r"|//events\.pagerduty\.com/integration/)[^\s'\",]*[^\s'\",:]",
    re.IGNORECASE,
)
# Headers of a request.
_HEADER = re.compile(
    r"(\b(?:authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token|apikey|digest|aws4-hmac-sha256)\s"
    r"|x-(?:api-key|auth-token|vault-token|amz-security-token)['\"]?\s*[:=]"
    r"|cookie['\"]?\s*:\s*['\"]?[\w.-]{1,99}=)\s*)[^\s'\",;]+(?:[,;] [^\s'\",;]+)*",
    re.IGNORECASE,
)
# Tokens with a form of their own: of Hugging Face, GitHub, GitLab, Slack and Google, and signed ones (JWT).
_FORMED = re.compile(
    r"\b(hf_(?=[A-Za-z0-9]{10})|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|AIza|eyJ(?=[\w-]{5,300}\.eyJ))[\w.-]{10,}"
)
# `user:password@` of a URL, up to the last @ before the next one: an unescaped password may have any sign.
# So what follows a port is hidden up to an @, too.
_LOGIN, _NEXT_URL = re.compile(r"://[^:/@\s]*:"), re.compile(r"\w://|\s|\Z")


def hide_parameters(text: str) -> str:
    """Return the text with *** for the values of secret parameters."""
    return _PARAMETER.sub(r"\1\2***", text)


def hide_secrets(text: str) -> str:
    """Return the text with *** for passwords and tokens of URLs and headers, and values of parameters."""
    text = _TOKEN_LOGIN.sub(r"\1***@", _hide_logins(text))
    text = _FORMED.sub(r"\1***", _HEADER.sub(r"\1***", _WEBHOOK.sub(r"\1***", text)))
    return hide_parameters(text)


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
