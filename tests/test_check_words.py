"""The check of `make check` for words that the project does not use."""

from pathlib import Path

from scripts.check_words import PHRASES, findings, read_phrases, tracked_files


def test_every_kind_of_text_file_is_checked() -> None:
    checked = set(tracked_files())
    assert {
        "Makefile",
        "CITATION.cff",
        "docs/how-to/alerts.md",
        "docker/worker.Dockerfile",
        "docker/kubernetes/unbound.conf",
        "docker/pools.json",
        "laion_etl/search/static/index.html",
        "mkdocs.yml",
        "scripts/check_words.py",
        "tests/test_check_words.py",
    } <= checked
    kinds = {Path(name).suffix for name in checked}
    assert kinds.isdisjoint({".png", ".jpg", ".safetensors", ".npz", ".xz"})


def test_a_phrase_is_found_unless_its_line_says_that_it_must_stay() -> None:
    phrases = read_phrases(PHRASES.read_text())
    text = "a setting\na kn" + "ob\na kn" + "ob  # words: ok\n"
    assert [(line, phrase) for line, phrase, _ in findings(text, phrases)] == [(2, "kn" + "ob")]
