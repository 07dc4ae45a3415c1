"""Text for terminals, logs and alerts without the passwords, tokens and signatures of URLs in it."""

import re

# Parameters of libpq and of URLs that storage services sign, in a query or in libpq's `name=value` form.
_PARAMETER = re.compile(
    r"(?<![\w-])((?:ssl)?password|passwd|access_token|token|secret|api_?key|sig|signature|awsaccesskeyid"
    r"|x-(?:amz|goog)-(?:signature|credential|security-token)|key-pair-id)"
    r"(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^&\s,]|,(?!\w+://))+)",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(://[^:/@\s]*):[^/\s]*@")  # `user:password@` of a URL, of each of its hosts
# The same of a server, up to the last @ before the next URL: a password that is not escaped may have any sign
# (`\w://`, not `\w+://`, which would read the rest of a long word again from each of its letters).
_SERVER_LOGIN = re.compile(r"(://[^:/@\s]*):(?:(?!\w://)\S)*@")


def hide_parameters(text: str) -> str:
    """Return the text with *** for the values of secret parameters."""
    return _PARAMETER.sub(r"\1\2***", text)


def hide_secrets(text: str) -> str:
    """Return the text with *** for passwords of URLs and values of secret parameters."""
    return hide_parameters(_LOGIN.sub(r"\1:***@", text))


def hide_secrets_of_servers(urls: str) -> str:
    """Return URLs of database servers with *** for their passwords."""
    return hide_parameters(_SERVER_LOGIN.sub(r"\1:***@", urls))
