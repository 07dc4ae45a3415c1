"""Score a folder of images, each with its caption in a text file of the same name, by a CLIP model.

python examples/score_folder.py images ViT-B-32 openai
"""

import sys
from pathlib import Path

import laion_etl as le


def main(folder: str, model: str = "laion-etl-tiny", pretrained: str = "scenes") -> None:
    images = sorted(path for path in Path(folder).iterdir() if path.suffix != ".txt")
    captions = [path.with_suffix(".txt").read_text() for path in images]
    scores = le.Scorer.from_pretrained(model, pretrained).score(images, captions)
    for path, row in zip(images, scores.to_pylist(), strict=True):
        similarity = "-" if row["similarity"] is None else f"{row['similarity']:.3f}"
        print(path.name, similarity, row["nsfw_tag"], row["reason"] or "kept")


if __name__ == "__main__":
    main(*sys.argv[1:])
