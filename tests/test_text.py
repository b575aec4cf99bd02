"""Our text towers and tokenizers against open_clip's and transformers' (tools/make_text_figures.py), whoever named the
weights; files that fit nothing say so."""

import gzip
import json
import re
import shutil

import numpy as np
import pytest
import seeded
from programs import ROOT
from quick import quick_jit

from ncl_jax import models
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.evaluation.class_vectors import ClassVectors
from ncl_jax.trust.neighbours import unit
from ncl_jax.weights import names, text_names, tokenizer

GOLDEN = ROOT / "tests" / "golden" / "text"
LENGTHS = {"clip": 77, "siglip": 64}
WRITERS = [(kind, writer) for kind in LENGTHS for writer in ("open_clip", "transformers")]


@pytest.fixture(scope="module")
def figures():
    with np.load(GOLDEN / "figures.npz") as file:
        return dict(file)


def state_dict(figures, kind, writer):
    """The seeded tensors by the writer's names."""
    tensors = {}
    for line in figures[f"{kind}/{writer}/names"]:
        key, shape = re.fullmatch(r"(\S+) \((.*)\)", line).groups()
        shape = tuple(int(number) for number in shape.replace(",", " ").split())
        tensors[key] = seeded.tensor(key, shape) if shape else np.float32(2.5)
    return tensors


def copy(folder, *files, **renamed):
    """Vocabulary files in a folder; `renamed`: by their new name without its ending."""
    for name in files:
        shutil.copy(GOLDEN / name, folder)
    for name, source in renamed.items():
        shutil.copy(GOLDEN / source, folder / f"{name}.json")
    return folder


@pytest.mark.parametrize(("kind", "writer"), WRITERS)
def test_features_are_theirs(figures, kind, writer):
    tensors = state_dict(figures, kind, writer)
    found = text_names.from_torch(tensors)
    assert found.kind == kind and found.scale == pytest.approx(np.exp(tensors["logit_scale"]).item())
    theirs, tokens = figures[f"{kind}/{writer}/features"], figures[f"{kind}/numbers"].astype(np.int32)
    ours = np.asarray(quick_jit(found.tower.apply)(found.variables, tokens))
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    if kind == "clip":
        projection = tensors["visual.proj"] if writer == "open_clip" else tensors["visual_projection.weight"].T
        np.testing.assert_array_equal(found.projection, projection)
    else:
        assert found.projection is None


def test_zero_shot_scores_are_open_clips(figures):
    """From images and texts to scores, with both towers of one file."""
    tensors = state_dict(figures, "clip", "open_clip") | {"logit_scale": figures["clip/open_clip/logit_scale"]}
    weights = text_names.from_torch(tensors)
    tokens = figures["clip/numbers"].astype(np.int32)
    features = np.asarray(quick_jit(weights.tower.apply)(weights.variables, tokens))
    image = models.make_backbone(backbone="clip_patch16", depth=1, width=128, precision="float32")
    own = {kind: tree["backbone"] for kind, tree in names.from_torch(tensors).items()}
    seen = np.asarray(quick_jit(lambda v, x: image.apply(v, x, False))(own, seeded.images(32)))
    scores = ClassVectors(unit(features), weights.projection, weights.scale).scores(seen)
    theirs = figures["clip/open_clip/logits"]
    assert theirs.shape == (2, len(tokens)) and np.abs(scores - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_what_follows_the_end_of_a_text_changes_nothing(figures):
    found = text_names.from_torch(state_dict(figures, "clip", "open_clip"))
    tokens = figures["clip/numbers"].astype(np.int32)
    short = tokens[tokens.argmax(1) < 40]
    theirs = figures["clip/open_clip/features"][tokens.argmax(1) < 40]
    assert 10 < len(short) < len(tokens)
    ours = np.asarray(quick_jit(found.tower.apply)(found.variables, short[:, :40]))
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


FORMS = {
    "clip, tokenizer.json": ("clip", (), {"tokenizer": "clip.json"}),
    "clip, vocab.json": ("clip", ("vocab.json", "merges.txt"), {}),
    "clip, OpenAI's": ("clip", ("bpe_simple_vocab_16e6.txt.gz",), {}),
    "siglip, tokenizer.json": ("siglip", (), {"tokenizer": "siglip.json"}),
    "siglip, spiece.model": ("siglip", ("spiece.model",), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_theirs(figures, tmp_path, form):
    pytest.importorskip("tokenizers")
    if "spiece" in form:
        pytest.importorskip("sentencepiece")
    kind, given, renamed = FORMS[form]
    copy(tmp_path, *given, **renamed)
    length, vocabulary = LENGTHS[kind], int(figures[f"{kind}/vocabulary"])
    found = tokenizer.read(tmp_path, kind, length, vocabulary)
    texts, expected = figures["texts"].tolist(), figures[f"{kind}/numbers"]
    np.testing.assert_array_equal(found(texts), expected)
    assert (found(texts) == found.end).any(1).all() and found(["word " * 100])[0, -1] == found.end


def test_transformers_numbers_but_for_what_fills_the_rest(figures):
    """They fill with the end, which the tower does not see."""
    ours, theirs = figures["clip/numbers"], figures["clip/transformers"]
    for text, one, other in zip(figures["texts"], ours, theirs, strict=True):
        end = one.argmax()
        assert one[: end + 1].tolist() == other[: end + 1].tolist(), text


BAD = {
    "nothing": ({}, ConfigError, "has no vocabulary of a CLIP text tower: put tokenizer.json or vocab.json"),
    "no merges": ({"vocab.json": "{}"}, DataError, "merges.txt cannot be read"),
    "no JSON": ({"tokenizer.json": "{"}, DataError, "tokenizer.json is damaged, or no vocabulary"),
    "JSON of something else": ({"tokenizer.json": "{}"}, DataError, "tokenizer.json is damaged"),
    "a list": ({"vocab.json": "[]", "merges.txt": ""}, DataError, "vocab.json is damaged"),
    "no numbers": ({"vocab.json": '{"a": "b"}', "merges.txt": ""}, DataError, "not numbers of tokens"),
    "no pair": ({"vocab.json": '{"a": 0}', "merges.txt": "a b c\n"}, DataError, "'a b c' is not a pair"),
    "a merge of unknown tokens": ({"vocab.json": '{"a": 0}', "merges.txt": "a b\n"}, DataError, "is damaged"),
    "no special tokens": ({"vocab.json": '{"a": 0}', "merges.txt": ""}, ConfigError, "of another text tower"),
    "not packed": ({"bpe_simple_vocab_16e6.txt.gz": "text"}, DataError, "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_vocabularies_that_there_are_not(tmp_path, name):
    pytest.importorskip("tokenizers")
    files, error, text = BAD[name]
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    with pytest.raises(error, match=re.escape(text)):
        tokenizer.read(tmp_path, "clip", 77, 700)


def test_a_vocabulary_of_another_tower(tmp_path):
    pytest.importorskip("tokenizers")
    content = json.loads((GOLDEN / "vocab.json").read_text())
    copy(tmp_path, "merges.txt")
    (tmp_path / "vocab.json").write_text(json.dumps(content | {"<|startoftext|>": 7, "<|endoftext|>": 8}))
    found = tokenizer.read(tmp_path, "clip", 77, 300)
    with pytest.raises(ConfigError, match="has more than 300 tokens"):
        found(["a photo of a cat"])
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(bytes(2**27)))
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(DataError, match="expands to more than"):
        tokenizer.read(tmp_path, "clip", 77, 300)


@pytest.mark.parametrize(("kind", "writer"), WRITERS)
def test_every_tensor_counts(figures, kind, writer):
    tensors = state_dict(figures, kind, writer)
    tower = [name for name in tensors if not re.match(r"visual|vision|logit", name)]
    assert len(tower) > 25
    for key in tower:
        without = {other: value for other, value in tensors.items() if other != key}
        for changed in (without, {**tensors, key: tensors[key][None]}, {**tensors, key: tensors[key][..., :1]},
                        {**tensors, f"{key}.more": tensors[key]}, {**tensors, key: np.float32(1)},
                        {**tensors, key: np.zeros((0,), np.float32)}):  # fmt: skip
            try:
                found = text_names.from_torch(changed)
            except ValueError:
                continue
            assert found.kind != kind, key  # a projection without its bias is CLIP's


@pytest.mark.parametrize(
    ("change", "text"),
    [({"visual.proj": None}, "visual.proj, the image tower's projection: expected [D, 24], got nothing"),
     ({"visual.proj": np.ones((128, 7))}, "expected [D, 24], got (128, 7)"),
     ({"logit_scale": np.float32(np.nan)}, "logit_scale=nan"), ({"logit_scale": np.ones(3)}, "logit_scale="),
     ({"token_embedding.weight": None}, "it holds no text tower, but"),
     ({"transformer.resblocks.0.attn.more": np.ones(3)}, "of no text tower that is known here"),
     ({"transformer.resblocks.9999.ln_1.weight": np.ones(3)}, "blocks are not 0 to 2, or more than 100"),
     ({f"transformer.resblocks.{n}.ln_1.weight": np.ones(3) for n in range(101)}, "blocks are not 0 to 100, or more")],
)  # fmt: skip
def test_files_without_a_text_tower(figures, change, text):
    tensors = state_dict(figures, "clip", "open_clip") | change
    with pytest.raises(ValueError, match=re.escape(text)):
        text_names.from_torch({name: value for name, value in tensors.items() if value is not None})


def test_class_vectors_against_loops():
    rng = np.random.default_rng(0)
    features, vectors, projection = rng.normal(size=(5, 6)), rng.normal(size=(3, 4)), rng.normal(size=(6, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = ClassVectors(vectors, projection, 7.0)
    assert found.width == 6 and ClassVectors(vectors).width == 4
    for image in range(5):
        for c in range(3):
            projected = features[image] @ projection
            cosine = projected @ vectors[c] / np.sqrt((projected**2).sum())
            assert found.scores(features)[image, c] == pytest.approx(7 * cosine, rel=1e-5)
    for c in range(3):
        weights = np.array([sum(projection[d, e] * vectors[c, e] for e in range(4)) for d in range(6)])
        np.testing.assert_allclose(found.kernel()[:, c], weights / np.sqrt((weights**2).sum()), rtol=1e-5)
    np.testing.assert_allclose(ClassVectors(vectors).kernel(), vectors.T, rtol=1e-5)
