"""Texts to token numbers, by the vocabulary that comes with a text tower's weights."""

import contextlib
import io
import json
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncl_jax.errors import ConfigError, DataError, NclError, one_line
from ncl_jax.runtime import compressed, extras, schema
from ncl_jax.runtime.files import read_file

MOST = 2**26  # bytes of a vocabulary file
MOST_OF_PIECES = 2**23  # of `spiece.model`
MOST_PAIRS = 2_000_000  # lists and objects in one: of merges, or of tokens with their scores
INSTALL = extras.install("text")
START, END, SIGLIP_END = "<|startoftext|>", "<|endoftext|>", "</s>"
# Words and numbers of CLIP's byte pairs, each digit alone (Radford et al. 2021).
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
MERGES = 49152 - 256 - 2  # of OpenAI's file, which holds more
# What SigLIP's file may do to a text. None makes it much longer: replacements by one letter, and a table of letters.
STEPS = frozenset({
    "Precompiled", "Replace", "Prepend", "Strip", "StripAccents", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
    "Metaspace", "WhitespaceSplit", "Whitespace", "Punctuation", "Digits", "Split",
})  # fmt: skip
MOST_STEPS, MOST_MAP, MOST_LETTERS = 8, 2**19, 2**21  # steps; characters of a table; of all pieces together


class Tokenizer(NamedTuple):
    """What makes token numbers of texts.

    Attributes:
      encode: a text's numbers, without those of start and end.
      start, end: numbers of the special tokens; None: texts have no start.
      padding: the number that fills the rest.
      length: of every text, the special tokens included: longer ones are cut, and keep their end.
      file: that the vocabulary was read from.
    """

    encode: Callable[[str], list[int]]
    start: int | None
    end: int
    padding: int
    length: int
    file: Path

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The numbers of texts, int32 `[B, length]`."""
        found = np.full((len(texts), self.length), self.padding, np.int32)
        start = [] if self.start is None else [self.start]
        for row, text in enumerate(texts):
            inner = self.encode(text)[: self.length - len(start) - 1]
            numbers = [*start, *inner, self.end]
            found[row, : len(numbers)] = numbers
        return found


def read(folder: Path, kind: str, length: int, vocabulary: int) -> Tokenizer:
    """The tokenizer of a text tower, of a file in its folder.

    Args:
      folder: where the tower's weights lie.
      kind: "clip" or "siglip".
      length: of every text, in tokens.
      vocabulary: how many tokens the tower knows.

    Raises:
      ConfigError: there is no such file, a library is missing, or the vocabulary is of another tower.
      DataError: the file is damaged.
    """
    place = next((folder / name for name in READERS[kind] if (folder / name).is_file()), None)
    if place is None:
        raise ConfigError(
            f"{folder} has no vocabulary of a {NAMES[kind]} text tower: put {' or '.join(READERS[kind])} beside the "
            "weights (docs/transformers.md says where they are)"
        )
    with _of_others(place):
        encode, number_of = READERS[kind][place.name](place)
    special = []
    for name in (START, END) if kind == "clip" else (SIGLIP_END,):
        number = number_of(name)
        if number is None or not 0 <= number < vocabulary:
            raise ConfigError(f"{place} is the vocabulary of another text tower: its token {name} has number {number}")
        special.append(number)
    start, end = (special[0] if kind == "clip" else None), special[-1]
    known = _within(encode, vocabulary, place)
    return Tokenizer(known, start, end, 0 if kind == "clip" else end, length, place)


@contextlib.contextmanager
def _of_others(place: Path) -> Iterator[None]:
    """Turns whatever a vocabulary provokes in the libraries that read it into an error that names it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"reading {place} needs a package ({error}): {INSTALL}") from error
    except (NclError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many types: a panic of Rust's programs is no Exception
        raise DataError(f"{place} is damaged, or no vocabulary ({one_line(error)})") from error


def _within(encode: Callable[[str], list[int]], vocabulary: int, place: Path) -> Callable[[str], list[int]]:
    """The same, with an error for a number that the tower does not know."""

    def checked(text: str) -> list[int]:
        with _of_others(place):
            numbers = encode(text)
        if numbers and max(numbers) >= vocabulary:
            raise ConfigError(f"{place} is the vocabulary of another text tower: it has more than {vocabulary} tokens")
        return numbers

    return checked


def canonical(text: str) -> str:
    """A text as SigLIP was trained on: without ASCII punctuation, in small letters, blanks single."""
    bare = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.lower().split())


_Read = tuple[Callable[[str], list[int]], Callable[[str], int | None]]


def _byte_pairs(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> _Read:
    """CLIP's: byte pairs of words in small letters, of which the last piece ends in </w>."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if not all(isinstance(number, int) and number >= 0 for number in vocabulary.values()):
        raise ValueError("its values are not numbers of tokens")
    model = models.BPE(vocabulary, merges, unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>")
    found = Tokenizer(model)
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    found.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True)
    found.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    found.add_special_tokens([name for name in (START, END) if name in vocabulary])
    return _of_library(found)


def _of_library(found: Any) -> _Read:
    """The two functions of a tokenizer of the library, which neither pads nor cuts."""
    found.no_padding()
    found.no_truncation()
    return (lambda text: found.encode(text, add_special_tokens=False).ids), found.token_to_id


def _parsed(path: Path) -> Any:
    return schema.parse(read_file(path, MOST), most=MOST_PAIRS)


def _from_json(path: Path) -> _Read:
    """CLIP's `tokenizer.json`: of it the vocabulary and the merges, because all else is the same in every CLIP."""
    model = _parsed(path)["model"]
    return _byte_pairs(model["vocab"], _pairs([" ".join(m) if isinstance(m, list) else m for m in model["merges"]]))


def _from_siglip_json(path: Path) -> _Read:
    from tokenizers import Tokenizer

    content = _parsed(path)
    _check_steps(content)
    encode, number_of = _of_library(Tokenizer.from_str(json.dumps(content)))
    return (lambda text: encode(canonical(text))), number_of


def _check_steps(content: Any) -> None:
    """Raises ValueError for a `tokenizer.json` that could make a text longer and longer, or other numbers each time."""
    steps = [step for name in ("normalizer", "pre_tokenizer") for step in _steps(content.get(name))]
    for step in steps:
        put = max(len(str(step.get(name, ""))) for name in ("content", "prepend", "replacement"))
        if step.get("type") not in STEPS or put > 1 or len(str(step.get("precompiled_charsmap", ""))) > MOST_MAP:
            raise ValueError(f"no vocabulary of SigLIP changes texts by the step {str(step)[:60]}")
    model = content["model"]
    letters = sum(len(str(entry[0])) for entry in model["vocab"]) if model["type"] == "Unigram" else 0
    if len(steps) > MOST_STEPS or letters > MOST_LETTERS or model.get("dropout"):
        raise ValueError(f"no vocabulary of SigLIP has {len(steps)} steps, {letters} letters, or draws at random")


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer or of what cuts texts to words, those of sequences one by one."""
    if part is None:
        return []
    inner = [*part.get("normalizers", []), *part.get("pretokenizers", [])]
    return [step for one in inner for step in _steps(one)] if part["type"] == "Sequence" else [part]


def _from_vocabulary(path: Path) -> _Read:
    """`vocab.json` with `merges.txt` beside it."""
    vocabulary = _parsed(path)
    if not isinstance(vocabulary, dict):
        raise ValueError("it is not an object of tokens")
    lines = read_file(path.with_name("merges.txt"), MOST).decode().splitlines()
    return _byte_pairs(vocabulary, _pairs(lines[1:] if lines[:1] and lines[0].startswith("#version") else lines))


def _from_openai(path: Path) -> _Read:
    """OpenAI's file of merges: the vocabulary is the bytes, the same at the end of a word, and what is merged."""
    text = compressed.Expanded(io.BytesIO(read_file(path, MOST)), MOST, path).read(MOST + 1).decode()
    merges = _pairs(text.splitlines()[1:][:MERGES])
    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    return _byte_pairs({token: number for number, token in enumerate(tokens)}, merges)


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in vocabularies of byte pairs, those that can be seen first."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(256 - len(seen))]


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    """The merges, a pair in a line. Raises ValueError for another line."""
    pairs = [tuple(line.split(" ")) for line in lines if line.strip()]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"the line {' '.join(wrong[0])[:40]!r} is not a pair of tokens")
    return [(first, second) for first, second in pairs]


def _from_pieces(path: Path) -> _Read:
    """SigLIP's `spiece.model`."""
    import sentencepiece

    found = sentencepiece.SentencePieceProcessor(model_proto=read_file(path, MOST_OF_PIECES))
    names = {found.id_to_piece(number): number for number in range(min(found.get_piece_size(), 100))}
    return (lambda text: found.encode(canonical(text))), names.get


READERS: dict[str, dict[str, Callable[[Path], _Read]]] = {
    "clip": {
        "tokenizer.json": _from_json, "vocab.json": _from_vocabulary, "bpe_simple_vocab_16e6.txt.gz": _from_openai,
    },
    "siglip": {"tokenizer.json": _from_siglip_json, "spiece.model": _from_pieces},
}  # fmt: skip
NAMES = {"clip": "CLIP", "siglip": "SigLIP"}
