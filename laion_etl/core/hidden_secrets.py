"""Text for terminals, logs and alerts without the passwords, tokens and signatures of URLs in it."""

import re

# Parameters of libpq and of URLs that storage services sign, in a query or in libpq's `name=value` form.
_PARAMETER = re.compile(
    r"(?<![\w-])((?:ssl|pg)?password|passwd|(?:access_|refresh_|hf_|aws_session_)?token|(?:client_)?secret"
    r"|aws_secret_access_key|api_?key|sig|signature|awsaccesskeyid"
    r"|x-(?:amz|goog)-(?:signature|credential|security-token)|key-pair-id)"
    r"(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^&\s,]|,(?!\w+://))+)",
    re.IGNORECASE,
)
_TOKEN_LOGIN = re.compile(r"(https?://)[^:/@\s?#]+@", re.IGNORECASE)  # where a name alone is no login
# Addresses whose path lets anyone post, headers of a request, and tokens of Hugging Face.
_WEBHOOK = re.compile(
    r"(//hooks\.slack\.com/|//discord(?:app)?\.com/api/webhooks/)[^\s'\",:]+", re.IGNORECASE
)
_HEADER = re.compile(r"\b(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)[\w.~+/=-]+", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
# `user:password@` of a URL, up to the last @ before the next one: an unescaped password may have any sign.
# So what follows a port is hidden up to an @, too.
_LOGIN, _NEXT_URL = re.compile(r"://[^:/@\s]*:"), re.compile(r"\w://|\s|\Z")


def hide_parameters(text: str) -> str:
    """Return the text with *** for the values of secret parameters."""
    return _PARAMETER.sub(r"\1\2***", text)


def hide_secrets(text: str) -> str:
    """Return the text with *** for passwords and tokens of URLs and headers, and values of parameters."""
    text = _TOKEN_LOGIN.sub(r"\1***@", _hide_logins(text))
    text = _HUB_TOKEN.sub("hf_***", _HEADER.sub(r"\1***", _WEBHOOK.sub(r"\1***", text)))
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
