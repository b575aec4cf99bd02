"""Vocabularies of text towers that somebody else made: no text grows without end, no number is drawn at random, and
whatever their libraries make of them is one line that names the file."""

import json
import random
import re
import shutil

import numpy as np
import pytest
from programs import ROOT

from ncl_jax.errors import DataError, NclError
from ncl_jax.weights import tokenizer

pytest.importorskip("tokenizers")
GOLDEN = ROOT / "tests" / "golden" / "text"
TEXTS = ["a photo of a cat.", "a" * 40, "é ½ 中"]
FILES = {"clip": "clip.json", "siglip": "siglip.json"}


def replace(content, pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


LETTER, NOTHING = {"String": "a"}, {"Regex": ""}
SPECIAL = {"<pad>": 0, "</s>": 1, "a": 2}
HOSTILE = {  # what is changed of SigLIP's file, and what must be said
    "each letter becomes many": ({"normalizer": replace("aa", LETTER)}, "the step .*Replace"),
    "every gap is filled, forty times": ({"normalizer": sequence(*[replace("a", NOTHING)] * 40)}, "40 steps|41 steps"),
    "sequences in a sequence": ({"normalizer": sequence(*[sequence(*[replace("a", NOTHING)] * 5)] * 5)}, "26 steps"),
    "a long beginning": ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "the step .*Prepend"),
    "a long blank": ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁" * 999}}, "the step .*Metaspace"),
    "a step of another kind": ({"normalizer": {"type": "Evil"}}, "the step .*Evil"),
    "a large table of letters": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "A" * 2**20}}, "the step .*Precompiled"
    ),
    "a table of letters that is none": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "Precomp"),
    "numbers are drawn": ({"model": {"type": "BPE", "dropout": 0.5, "vocab": SPECIAL, "merges": []}}, "at random"),
    "a piece of two million letters": (
        {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["</s>", 0.0], ["a" * 2**21, -1.0]]}}, "letters"
    ),
    "an unknown letter without a number": (
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["</s>", 0.0], ["a", -1.0]]}}, "unk_id"
    ),
    "words that are not known": ({"model": {"type": "WordLevel", "vocab": SPECIAL, "unk_token": "?"}}, "UNK|damaged"),
    "deep": ({"normalizer": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "nested more than"),
}  # fmt: skip


def siglip(folder, **changed):
    content = json.loads((GOLDEN / "siglip.json").read_text()) | changed
    (folder / "tokenizer.json").write_text(json.dumps(content))


def numbers(folder, kind):
    return tokenizer.read(folder, kind, 64, 10**6)(TEXTS)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_vocabulary_of_siglip_that_does_harm(tmp_path, name):
    changed, said = HOSTILE[name]
    siglip(tmp_path, **changed)
    with pytest.raises(DataError, match=f"(?s)tokenizer.json is damaged, or no vocabulary .*({said})") as raised:
        numbers(tmp_path, "siglip")
    assert "\n" not in str(raised.value)


def test_steps_that_vocabularies_of_siglip_have(tmp_path):
    shutil.copy(GOLDEN / "siglip.json", tmp_path / "tokenizer.json")
    before = numbers(tmp_path, "siglip")
    words = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    ]}  # fmt: skip
    siglip(tmp_path, normalizer=sequence(replace(" ", {"Regex": " {2,}"})), pre_tokenizer=words)
    np.testing.assert_array_equal(numbers(tmp_path, "siglip"), before)


def test_of_clips_file_the_vocabulary_alone_counts(tmp_path):
    shutil.copy(GOLDEN / "clip.json", tmp_path / "tokenizer.json")
    before, content = numbers(tmp_path, "clip"), json.loads((GOLDEN / "clip.json").read_text())
    steps = {name: step for change, _ in HOSTILE.values() for name, step in change.items() if name != "model"}
    content |= steps | {"normalizer": sequence(*[replace("aa", LETTER)] * 40)}
    content["model"] |= {"dropout": 0.9, "merges": [" ".join(merge) for merge in content["model"]["merges"]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(numbers(tmp_path, "clip"), before)


@pytest.mark.parametrize(("kind", "name", "most"), [
    ("clip", "tokenizer.json", tokenizer.MOST), ("siglip", "spiece.model", tokenizer.MOST_OF_PIECES),
])  # fmt: skip
def test_a_vocabulary_has_an_end(tmp_path, kind, name, most):
    if name == "spiece.model":
        pytest.importorskip("sentencepiece")
    with (tmp_path / name).open("wb") as file:
        file.truncate(most + 1)
    with pytest.raises(DataError, match=re.escape(f"{name} is larger than {most:,} bytes")):
        numbers(tmp_path, kind)


@pytest.mark.parametrize(
    "text", [b"[" * 200_000, b'{"a":' * 200_000, b"[]," * 2_000_001, b'{"model": 1}', b'{"model": {}}', b"\xff"]
)
def test_texts_that_are_no_vocabulary(tmp_path, text):
    for kind in FILES:
        (tmp_path / "tokenizer.json").write_bytes(text)
        with pytest.raises(DataError, match=r"tokenizer\.json is damaged"):
            numbers(tmp_path, kind)


@pytest.mark.parametrize(("kind", "name", "source"), [
    ("clip", "tokenizer.json", "clip.json"), ("siglip", "tokenizer.json", "siglip.json"),
    ("siglip", "spiece.model", "spiece.model"), ("clip", "bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt.gz"),
])  # fmt: skip
def test_random_changes_end_in_an_error_of_ours_or_in_none(tmp_path, kind, name, source):
    if name == "spiece.model":
        pytest.importorskip("sentencepiece")
    good, draw = (GOLDEN / source).read_bytes(), random.Random(0)
    outcomes = set()
    for _ in range(60):
        content = bytearray(good)
        for _ in range(draw.choice((1, 2, 8))):
            place = draw.randrange(len(content))
            content[place : place + draw.choice((0, 1, 5))] = draw.randbytes(draw.choice((0, 1, 1, 3)))
        (tmp_path / name).write_bytes(content[: draw.choice((len(content), len(content), len(content) // 2))])
        try:
            outcomes.add(numbers(tmp_path, kind).shape == (len(TEXTS), 64))
        except NclError as error:
            assert name in str(error) and "\n" not in str(error)
            outcomes.add(type(error))
    assert DataError in outcomes and False not in outcomes
