"""Coverage-guided fuzzing of one target with atheris; `make fuzz MINUTES=10` fuzzes all of them.

    python -m tests.fuzz.run TARGET CORPUS_FOLDER [libFuzzer options, e.g. -max_total_time=600]

The kernels run as Python, so that the fuzzer sees their branches too. What it finds belongs into
tests/fuzz/seeds/TARGET, which test_seeds.py replays with the compiled kernels.
"""

import os
import sys
import warnings

os.environ["NUMBA_DISABLE_JIT"] = "1"

import atheris

with atheris.instrument_imports(include=["laion_etl"]):
    from laion_etl.parse.kernels import inflate
    from tests.fuzz.targets import TARGETS


def main() -> None:
    warnings.simplefilter("ignore", RuntimeWarning)  # hashes overflow, as they should
    vars(inflate)["_LIBRARY"] = None  # called from compiled code only; members are read as streams
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
