"""Search a published dataset by text; `laion-etl search index` has made its index.

The model is the one that scored the dataset: LAION_ETL_CLIP_MODEL and LAION_ETL_CLIP_PRETRAINED name it.

python examples/search_dataset.py data/dataset/laion "a red car"
"""

import sys

import laion_etl as le


def main(path: str, text: str) -> None:
    dataset = le.open_dataset(path)
    for row in dataset.search(text, top=5, languages=("en",)).to_pylist():
        print(f"{row['score']:.3f} {row['TEXT']} {row['URL']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
