"""Prints a digest of a product by numpy's BLAS: the bits show which kernel was used.

OPENBLAS_CORETYPE=Haswell python -m tests.score.blas_probe
"""

import hashlib

import numpy as np


def main() -> None:
    random = np.random.default_rng(1)
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 512), (512, 20)))
    print(hashlib.sha256((left @ right).tobytes()).hexdigest())


if __name__ == "__main__":
    main()
