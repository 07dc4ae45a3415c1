"""Limits of the process or the machine that are reached anywhere: in imports, threads and output."""

import errno

_FULL = "cannot write the output, or a temporary file: the disk is full; free some space"
_MEMORY = "cannot go on: out of memory; raise the limit of this process (ulimit -v) or of its container"
_PROCESSES = "cannot start a thread or process: there are too many; raise the limit (ulimit -u)"
_OF_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "cannot write the output, or a temporary file: the disk quota is used up; free some space",
    errno.EFBIG: "cannot write the output, or a temporary file: it would be larger than allowed; raise the "
    "limit (ulimit -f)",
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.EMFILE: "cannot open a file: this process has too many open; raise the limit (ulimit -n)",
    errno.ENFILE: "cannot open a file: this machine has too many open; raise its limit (sysctl fs.file-max)",
}
# Of the dynamic linker, and of `threading`.
_TEXTS = {
    "failed to map segment": _MEMORY,
    "Cannot allocate memory": _MEMORY,
    "can't start new thread": _PROCESSES,
}


def limit_reached(error: BaseException | None) -> str | None:
    """Return what an error, or one that led to it, says about a limit; None if it is about none."""
    while error is not None:
        if isinstance(error, MemoryError):
            return _MEMORY
        if isinstance(error, OSError) and error.errno in _OF_SYSTEM:
            return _OF_SYSTEM[error.errno]
        for text, reached in _TEXTS.items():
            if text in str(error):
                return reached
        error = error.__cause__ or error.__context__
    return None
