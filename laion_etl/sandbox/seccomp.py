"""A filter of system calls for processes that decode hostile images.

After its start such a process only reads and writes what is open, uses memory, reads clocks and ends. These
calls are allowed; all others fail with EPERM, so that code that took over a decoder can't open a file or a
socket, start a process, send a signal or read the memory of another process. Calls of another architecture
(32-bit code) end the process.

Kernel documentation, userspace-api/seccomp_filter; the filter is installed without privileges, which needs
PR_SET_NO_NEW_PRIVS. Numbers of calls: asm/unistd_64.h (x86-64) and asm-generic/unistd.h (arm64).
"""

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

# struct seccomp_data: number of the call, architecture
_CALL_AT, _ARCHITECTURE_AT = 0, 4
_LOAD, _JUMP_IF_EQUAL, _RETURN = (
    0x20,
    0x15,
    0x06,
)  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter


@dataclass(frozen=True, slots=True)
class _Calls:
    """An architecture (linux/audit.h) and its numbers of the allowed calls."""

    architecture: int
    numbers: dict[str, int]


_X86_64 = _Calls(
    0xC000003E,
    {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
        "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "readv": 19, "writev": 20,
        "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60,
        "getcwd": 79, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202,
        "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228,
        "clock_nanosleep": 230, "exit_group": 231,
        "set_robust_list": 273, "getrandom": 318, "rseq": 334,
    },
)  # fmt: skip
_ARM64 = _Calls(
    0xC00000B7,
    {
        "getcwd": 17, "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66,
        "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99,
        "nanosleep": 101, "clock_gettime": 113,
        "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128,
        "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "gettimeofday": 169, "getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216,
        "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "rseq": 293,
    },
)  # fmt: skip
_MACHINES = {"x86_64": _X86_64, "aarch64": _ARM64}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def supported() -> bool:
    """Whether this kernel filters system calls and the numbers for this machine are known.

    A kernel that does wants to read the filter, which is not there (EFAULT); others refuse the mode (EINVAL).
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0) != 0 and ctypes.get_errno() == errno.EFAULT)


def install() -> bool:
    """Filters the system calls of this thread and of those it starts, for good; whether that was possible.

    To be called when everything the process needs is imported and open.
    """
    program = _program(_MACHINES[platform.machine()])
    given = _Program(len(program) // _INSTRUCTION.size, program)
    prctl = ctypes.CDLL(None).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0) == 0)


def _program(calls: _Calls) -> bytes:
    """Returns the filter as instructions of classic BPF."""
    numbers = [*calls.numbers.values()]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, calls.architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _CALL_AT),
        # A jump is relative to the next step: over the other numbers and over the refusal.
        *((_JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)
