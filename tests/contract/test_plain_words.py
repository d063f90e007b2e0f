"""Docstrings, comments, help and errors are in plain English, by a measure of words that native writers hardly use."""

from collections import Counter

import pytest

from tests.contract.plain_words import PER_WORDS, WORDS, found, prose
from tests.contract.rooms import ROOT

#: What a user or a developer of the product reads; one measure for the small ones.
FOLDERS = (("enclave_signer",), ("host_backend",), ("quickstart", "image", "benchmarks"))


@pytest.mark.parametrize("folders", FOLDERS, ids=" ".join)
def test_code_help_and_errors(folders: tuple[str, ...]) -> None:
    counts, places, words = Counter[str](), list[str](), 0
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in prose(path):
                words += len(text.split())
                for word in found(text):
                    counts[word] += 1
                    places.append(f"{path.relative_to(ROOT)}:{line}: {word}")
    too_many = {word for word, count in counts.items() if count * PER_WORDS > max(words, PER_WORDS)}
    assert not too_many, "\n".join(places)


def test_the_measure_sees_the_words_across_lines() -> None:
    assert sorted(found("Whoever shall know what\n  is told anew; nobody, whatever island")) == sorted(WORDS)
