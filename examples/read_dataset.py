"""Check a published dataset and read the captions of one of its subsets.

python examples/read_dataset.py data/dataset/laion laion-en
"""

import sys

import laion_etl as le


def main(path: str, subset: str) -> None:
    dataset = le.open_dataset(path)
    verdict = dataset.verify()
    print(f"{dataset.version}: {verdict.rows:,} rows, {len(verdict.problems)} problems")
    for table in dataset.rows(subset, columns=["SAMPLE_ID", "TEXT", "similarity"]):
        for row in table.to_pylist():
            print(f"{row['SAMPLE_ID']:014d} {row['similarity']:.3f} {row['TEXT']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
