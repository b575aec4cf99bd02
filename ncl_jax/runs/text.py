"""Class vectors by a text tower: its weights and its vocabulary, from files or from the hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from ncl_jax.data.sources.names import first_few
from ncl_jax.errors import ConfigError, one_line
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.models.named import NAMED, TEXT, VOCABULARY
from ncl_jax.runs import pretrained
from ncl_jax.runtime.files import expand
from ncl_jax.trust.neighbours import unit
from ncl_jax.weights import text_names, tokenizer
from ncl_jax.weights.read import digest, read_weights
from ncl_jax.weights.text_names import TextWeights
from ncl_jax.weights.tokenizer import Tokenizer

BATCH = 64  # texts at once
SYNSET = re.compile(r"n\d{8}")  # WordNet's numbers, ImageNet's folders
STEP = 8  # tokens: the lengths that texts are cut to are multiples of it


class Place(NamedTuple):
    """Where a text tower is."""

    weights: Path
    folder: Path  # of the vocabulary


def find(model: ml_collections.ConfigDict) -> Place:
    """The text tower of the section `model`. Raises ConfigError where there is none."""
    name = model.text or model.pretrained
    path = expand("model.text", name)
    if path.is_file():
        return Place(path, path.parent)
    if name in NAMED and name not in TEXT:
        raise ConfigError(f"model.pretrained={name} has no text tower; those with one: {', '.join(TEXT)}")
    address = TEXT.get(name, name)
    if path.is_dir() or address.startswith(("/", ".", "~")) or not 1 <= address.count("/") <= 2:
        raise ConfigError(
            f"model.text={model.text!r}, model.pretrained={model.pretrained}: there is no text tower; pass "
            f"model.text=FILE with one, its vocabulary beside it, or one of the names {', '.join(TEXT)}"
        )
    weights = pretrained.from_hub(address)
    return Place(weights, pretrained.from_hub("/".join([*address.split("/")[:2], VOCABULARY])).parent)


def is_at_hand(model: ml_collections.ConfigDict) -> bool:
    """Whether the weights of `model.pretrained` may have a text tower in the same file."""
    name = model.pretrained
    if name in NAMED:
        return TEXT.get(name) == NAMED[name].weights
    path = expand("model.pretrained", name)
    return path.is_file() and text_names.knows(read_weights(path))


def read(place: Place) -> tuple[TextWeights, Tokenizer]:
    """A text tower and its tokenizer. Raises ConfigError, DataError: they do not fit, are damaged or missing."""
    try:
        found = text_names.from_torch(read_weights(place.weights))
    except ValueError as error:
        raise ConfigError(f"the text tower {place.weights}: {one_line(error)}") from error
    tower = found.tower
    return found, tokenizer.read(place.folder, found.kind, tower.length, tower.vocabulary)


def class_vectors(place: Place, names: Sequence[str], template: str) -> tuple[ClassVectors, dict]:
    """The vectors of classes from their names, and what they were made of.

    Args:
      place: the text tower.
      names: [C]; `_` stands for a blank.
      template: texts with {name}, between |. A class's vector is the mean of theirs, each of length 1.

    Raises:
      ConfigError: see `read`; names that are not words, or that the tower cannot tell apart.
    """
    check_names(names)
    found, tokens = read(place)
    templates = template.split("|")
    texts = [text.replace("{name}", name.replace("_", " ")) for name in names for text in templates]
    check_apart(names, tokens(texts).reshape(len(names), -1))
    features = unit(encode(found, tokens, texts)).reshape(len(names), len(templates), -1)
    vectors = unit(features.mean(1)).astype(np.float32)
    record = {"file": place.weights.name, "sha256": digest(place.weights), "vocabulary": tokens.file.name,
              "template": template}  # fmt: skip
    return ClassVectors(vectors, found.projection, found.scale), record


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for classes that are numbered, by ImageNet too: a text tells nothing of them."""
    if numbers := [name for name in names if SYNSET.fullmatch(name) or not any(letter.isalpha() for letter in name)]:
        raise ConfigError(
            f"{len(numbers)} classes have no words for a name ({first_few(numbers)}): name them (data.list.classes, "
            "names of folders), or pass model.class_vectors=FILE"
        )


def check_apart(names: Sequence[str], numbers: np.ndarray) -> None:
    """Raises ConfigError for classes whose texts are the same to the tower, which would never name the second: they
    differ in capitals, punctuation, letters that its vocabulary does not have, or after its longest text.

    Args:
      names: [C].
      numbers: of the tokens of each class's texts, `[C, N]`.
    """
    first: dict[bytes, str] = {}
    for name, row in zip(names, numbers, strict=True):
        if (other := first.setdefault(row.tobytes(), name)) != name:
            raise ConfigError(
                f"the classes {other!r} and {name!r} are the same to the text tower, which knows neither capitals nor "
                "all letters and marks: rename one of them, or pass model.class_vectors=FILE"
            )


def encode(found: TextWeights, tokens: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """The features of texts, float32 `[N, d]`."""
    numbers = tokens(texts)
    if found.tower.form.causal:  # nothing that follows the end counts
        longest = int(numbers.argmax(1).max()) + 1
        numbers = numbers[:, : -(-longest // STEP) * STEP]
    program = jax.jit(found.tower.apply)
    rows = []
    with jax.default_matmul_precision("float32"):
        for first in range(0, len(numbers), BATCH):
            part = numbers[first : first + BATCH]
            filled = np.concatenate([part, np.repeat(part[:1], BATCH - len(part), 0)])  # one size, compiled once
            rows.append(np.asarray(program(found.variables, filled))[: len(part)])
    return np.concatenate(rows)
