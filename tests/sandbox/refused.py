"""A process to be confined, on a kernel that filters system calls but refuses this filter."""

from laion_etl.sandbox import seccomp
from laion_etl.sandbox.limits import confine

if __name__ == "__main__":
    seccomp.install = lambda: False
    confine(1_024)
    print("not confined, and still here")
