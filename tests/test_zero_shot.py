"""Classes by their names: `ncl-jax zero-shot`, heads that start from texts, and vectors from a file."""

import csv
import json
import re
import types

import numpy as np
import pytest
from programs import ROOT
from quick import quick_jit
from safetensors.numpy import save, save_file
from test_own_images import make_folder
from test_text import GOLDEN, copy
from test_text import state_dict as text_tensors
from test_timm import openai, state_dict

import ncl_jax
from ncl_jax import cli, models
from ncl_jax.config import checks, files
from ncl_jax.data.images.decode import prepare
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.models.named import NAMED, TEXT
from ncl_jax.runs import class_vectors, folds, pretrained, text
from ncl_jax.runs.pretrained import Start
from ncl_jax.storage.directory import RunDir
from ncl_jax.weights import names, vit_names

CLASSES = {"black_cat": 8, "dog": 6, "long sleeve": 4}
SIDE = 32


@pytest.fixture(scope="module")
def tensors():
    """Both towers of a tiny CLIP by OpenAI's names."""
    with np.load(ROOT / "tests" / "golden" / "timm.npz") as file:
        image = openai(state_dict(dict(file), "clip_patch16"))
    with np.load(GOLDEN / "figures.npz") as file:
        texts = text_tensors(dict(file), "clip", "open_clip")
    image = {name: value for name, value in image.items() if name.startswith("visual.")}
    rest = {name: value for name, value in texts.items() if not name.startswith("visual.")}
    return image | rest | {"visual.proj": texts["visual.proj"]}


@pytest.fixture(scope="module")
def place(tensors, tmp_path_factory):
    """The weights with a vocabulary, a folder of images, and a list of their classes."""
    pytest.importorskip("tokenizers")
    root = tmp_path_factory.mktemp("clip")
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, root / "clip.safetensors")
    copy(root, tokenizer="clip.json")
    make_folder(root / "data", ("train", "test"), CLASSES)
    (root / "names.txt").write_text("long sleeve\nblack_cat\ndog\ntable\n")
    return root


@pytest.fixture(scope="module", autouse=True)
def named():
    """The tiny CLIP by name."""
    with pytest.MonkeyPatch.context() as patch:
        row = NAMED["clip_base"]._replace(depth=4, width=128, image_size=SIDE, resize=SIDE)
        patch.setitem(NAMED, "tiny_clip", row)
        patch.setitem(TEXT, "tiny_clip", "nobody/tiny/clip.safetensors")
        yield


@pytest.fixture(scope="module")
def expected(place, tensors):
    """The scores `[C](file)` of an image by loops, for classes in any order, and the classes' vectors."""
    weights, tokens = text.read(text.Place(place / "clip.safetensors", place))
    trunk = models.make_backbone(backbone="clip_patch16", depth=4, width=128, precision="float32")
    own = vit_names.at_grid(names.from_torch(tensors), SIDE // 16)
    variables = {kind: tree["backbone"] for kind, tree in own.items()}

    tower, image = quick_jit(weights.tower.apply), quick_jit(lambda v, x: trunk.apply(v, x, False))

    def vector(name, templates=("a photo of a {name}.",)):
        found = []
        for template in templates:
            made = np.asarray(tower(weights.variables, tokens([template.replace("{name}", name)])))[0]
            found.append(made / np.sqrt((made**2).sum()))
        mean = sum(found) / len(found)
        return mean / np.sqrt((mean**2).sum())

    def scores(pixels, words):
        mean, std = (np.array(numbers, np.float32) for numbers in (NAMED["clip_base"].mean, NAMED["clip_base"].std))
        features = np.asarray(image(variables, (pixels / np.float32(255) - mean) / std))
        projected = features @ tensors["visual.proj"]
        projected /= np.sqrt((projected**2).sum(1, keepdims=True))
        return np.exp(2.5) * projected @ np.stack([vector(word) for word in words]).T

    return types.SimpleNamespace(vector=vector, scores=scores)


def zero(place, *arguments):
    flags = (f"--pretrained={place}/clip.safetensors", "--backbone=tiny_clip")
    return cli.attempt("zero-shot", [*flags, *map(str, arguments)])


def test_the_command(place, expected, tmp_path, capfd):
    out = tmp_path / "answers.csv"
    assert zero(place, f"--classes={place}/names.txt", place / "data" / "test", f"--out={out}", "--top=4") == ("", 0)
    shown = capfd.readouterr().out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = ["long sleeve", "black cat", "dog", "table"]
    pixels = prepare([row["file"] for row in rows], (SIDE, SIDE, 3), SIDE, SIDE, "bicubic")
    scores = expected.scores(pixels, words)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert len(rows) == 18 and "disagreement" in rows[0]
    shared = ["long sleeve", "black_cat", "dog", "table"]
    for row, share in zip(rows, shares, strict=True):
        assert row["label_1"] == shared[share.argmax()]
        assert float(row["probability_1"]) == pytest.approx(share.max(), abs=1e-4)
    right = np.mean([row["label_1"] in row["file"] for row in rows])
    assert f"accuracy {100 * right:.1f} % of 18 images" in shown


def test_weights_that_give_no_numbers_are_said(place, tensors, tmp_path):
    broken = {name: np.full_like(value, np.nan) if "ln_post" in name else value for name, value in tensors.items()}
    save_file({name: np.ascontiguousarray(value) for name, value in broken.items()}, tmp_path / "clip.safetensors")
    copy(tmp_path, tokenizer="clip.json")
    image = next((place / "data" / "test" / "dog").iterdir())
    message, code = zero(tmp_path, image, f"--classes={place}/names.txt")
    assert code == 1 and f"{image}: its scores are infinite or not a number" in message


@pytest.mark.parametrize("other", ["Dog", "dog ", "dog  "])
def test_classes_that_the_tower_cannot_tell_apart_are_refused(place, other):
    tower = text.Place(place / "clip.safetensors", place)
    with pytest.raises(ConfigError, match=f"'dog' and '{other}' are the same"):
        text.class_vectors(tower, ["cat", "dog", other], "{name}, a photo")


def test_classes_from_folders_and_images_without_labels(place, capfd):
    assert zero(place, place / "data" / "test", "--template=a photo of a {name}.|the {name}") == ("", 0)
    assert re.fullmatch(r"accuracy [\d.]+ % of 18 images, [\d.]+ % as a mean of classes\n", capfd.readouterr().out)
    image = next((place / "data" / "test" / "dog").iterdir())
    assert zero(place, image, f"--classes={place}/names.txt") == ("", 0)
    assert capfd.readouterr().out.startswith(f"{image}: ")


def test_several_templates_are_averaged(place, expected):
    found, record = text.class_vectors(
        text.Place(place / "clip.safetensors", place), ["black_cat", "dog"], "a photo of a {name}.|the {name}"
    )
    for row, word in enumerate(("black cat", "dog")):
        wanted = expected.vector(word, ("a photo of a {name}.", "the {name}"))
        np.testing.assert_allclose(found.vectors[row], wanted, atol=1e-5)
    assert found.scale == pytest.approx(np.exp(2.5)) and record["vocabulary"] == "tokenizer.json"


def train(place, workdir, *flags, **fields):
    what = f"dir={place}/data,backbone=tiny_clip,pretrained={place}/clip.safetensors,method=ce,epochs=1"
    fields = {"optim.batch_size": 6, "model.num_experts": 1, "data.cached_views": 1, "run.data_devices": 1,
              "run.conv": "xla", "data.cache": f"{place}/cache", "optim.learning_rate": 1e-9,
              "model.head_start": "text", **fields}  # fmt: skip
    values = [f"--config.{name}={value}" for name, value in fields.items()]
    return cli.attempt("train", [f"--config=folder:{what}", f"--workdir={workdir}", *values, *flags])


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    """A run whose heads start from texts and hardly move."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert train(place, workdir) == ("", 0)
    return workdir


def test_heads_start_from_texts(run, place, tensors, expected):
    """By w_c = normalise(normalise(t_c) P^T)."""
    kernel = np.asarray(ncl_jax.load(run).variables["params"]["classifier"]["kernel"])
    for column, word in enumerate(("black cat", "dog", "long sleeve")):
        wanted = tensors["visual.proj"] @ expected.vector(word)
        wanted /= np.sqrt((wanted**2).sum())
        for expert in kernel:
            np.testing.assert_allclose(expert[:, column], wanted, atol=1e-5)
    results = RunDir(run).read_results()
    record = results["pretrained"]["text"]
    assert record["file"] == "clip.safetensors" and record["template"] == "a photo of a {name}."
    pictures = sorted((place / "data" / "test").rglob("*.jpg"))
    pixels = prepare(pictures, (SIDE, SIDE, 3), SIDE, SIDE, "bicubic")
    answers = expected.scores(pixels, ["black cat", "dog", "long sleeve"]).argmax(1)
    right = np.mean([sorted(CLASSES)[c] == file.parent.name for c, file in zip(answers, pictures, strict=True)])
    assert results["baselines"]["zero-shot"]["accuracy"] == pytest.approx(right)
    assert len(results["baselines"]) == 7


def test_heads_of_folds_start_from_the_same(run, monkeypatch):
    directory, given = RunDir(run), []
    monkeypatch.setattr(folds, "write", lambda *arguments: given.append(arguments[-1]))
    stub = types.SimpleNamespace(
        directory=directory, config=directory.read_config(), state=types.SimpleNamespace(step=1), inputs=None,
        log=types.SimpleNamespace(print=lambda text: None), progress=directory.read_results(), frozen=None,
    )  # fmt: skip
    folds.keep(stub, None, 2, 0, None)
    kernel = np.asarray(ncl_jax.load(run).variables["params"]["classifier"]["kernel"])[0]
    np.testing.assert_allclose(given[0].kernel(), kernel, atol=1e-5)


def test_a_run_continues_with_its_vectors_alone(run, place):
    """Neither the text tower nor the vocabulary is needed again."""
    vectors = RunDir(run).class_vectors
    before = RunDir(run).read_results()["baselines"]["zero-shot"]
    moved = place / "tokenizer.json"
    content = moved.read_bytes()
    moved.unlink()
    try:
        assert train(place, run, "--extend=1") == ("", 0)
        assert RunDir(run).read_results()["baselines"]["zero-shot"] == before
        kept = vectors.read_bytes()
        vectors.write_bytes(kept[:-4] + bytes(4))
        message, code = train(place, run, "--extend=2")
        assert code == 1 and "class_vectors.safetensors is not what the run began with" in message
        vectors.unlink()
        message, code = train(place, run, "--extend=2")
        assert code == 1 and "class_vectors.safetensors cannot be read" in message
        vectors.write_bytes(kept)
    finally:
        moved.write_bytes(content)


def start(place, **fields):
    """A start of such a run with what is added to it."""
    config = files.load(f"folder:dir={place}/data,backbone=tiny_clip,pretrained={place}/clip.safetensors,method=ce")
    config.update_from_flattened_dict(fields)
    checks.validate(config)
    facts = types.SimpleNamespace(class_names=tuple(sorted(CLASSES)), image_shape=(SIDE, SIDE, 3))
    trunk = models.make_backbone(backbone="clip_patch16", depth=4, width=128, precision="float32")
    plan = types.SimpleNamespace(facts=facts, trunk=trunk, input_shape=(5, 128))  # of tokens, where there are adapters
    return class_vectors.added(Start(None, {}, "note", trunk={}), config, plan)


def test_a_baseline_where_the_tower_is_at_hand(place, tmp_path):
    found = start(place)
    assert found.vectors.vectors.shape == (3, 24) and "vectors of 3 classes from clip.safetensors" in found.note
    bare = tmp_path / "clip.safetensors"
    bare.write_bytes((place / "clip.safetensors").read_bytes())
    found = start(place, **{"model.pretrained": str(bare)})
    assert found.vectors is None and "no zero-shot row" in found.note
    with pytest.raises(ConfigError, match="has no vocabulary of a CLIP text tower"):
        start(place, **{"model.pretrained": str(bare), "model.head_start": "text"})


def write(path, names=None, **arrays):
    """A file of class vectors."""
    if path.suffix == ".npy":
        np.save(path, arrays["vectors"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays | ({} if names is None else {"names": np.array(names)}))
    else:
        path.write_bytes(save(arrays, None if names is None else {"names": json.dumps(names)}))
    return path


VECTORS = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)


@pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.safetensors"])
def test_vectors_of_a_file(place, tmp_path, name):
    order = [2, 0, 1]  # of the file's rows
    given = {} if name.endswith("npy") else {"names": np.array(sorted(CLASSES))[order].tolist()}
    path = write(tmp_path / name, vectors=VECTORS[order] if given else VECTORS, **given)
    found = start(place, **{"model.head_start": "text", "model.class_vectors": str(path)})
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors.kernel(), unit.T, rtol=1e-5)
    assert found.record["text"]["file"] == name and len(found.record["text"]["sha256"]) == 64


BAD = {
    "too few": ({"vectors": VECTORS[:2]}, ConfigError, "has 2 vectors, but there are 3 names"),
    "no number": ({"vectors": VECTORS * np.nan}, ConfigError, "vectors must be floating-point"),
    "whole numbers": ({"vectors": np.ones((3, 128), int)}, ConfigError, "vectors must be floating-point"),
    "infinite in 32 bits": ({"vectors": VECTORS * np.float64(1e300)}, ConfigError, "none beyond 1e+06"),
    "infinite products": ({"vectors": VECTORS * np.float32(1e30)}, ConfigError, "none beyond 1e+06"),
    "nearly zeros": ({"vectors": VECTORS * np.float32(1e-30)}, ConfigError, "the vectors of black_cat, dog"),
    "a projection to nothing": (
        {"vectors": VECTORS, "projection": np.zeros((128, 128), np.float32)}, ConfigError, "projection must be"
    ),
    "a name twice": (
        {"vectors": np.tile(VECTORS, (2, 1)), "names": [*sorted(CLASSES), "dog", "x", "x"]}, ConfigError,
        "has several vectors of dog: keep"
    ),
    "three axes": ({"vectors": VECTORS[None]}, ConfigError, "in two axes"),
    "zeros": ({"vectors": VECTORS * [[1], [0], [1]]}, ConfigError, "the vectors of dog are zero"),
    "another width": ({"vectors": VECTORS[:, :7]}, ConfigError, "features of 7 numbers, but the backbone gives 128"),
    "a missing class": (
        {"vectors": VECTORS, "names": ["dog", "cat", "table"]}, ConfigError, "has no vector of black_cat, long sleeve"
    ),
    "another projection": (
        {"vectors": VECTORS, "projection": np.ones((128, 5), np.float32)}, ConfigError, "projection (128, 5)"
    ),
    "another array": ({"weights": VECTORS}, DataError, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_vectors_that_fit_no_run(place, tmp_path, name):
    arrays, error, words = BAD[name]
    path = write(tmp_path / "v.npz", **arrays)
    with pytest.raises(error, match=re.escape(words)):
        start(place, **{"model.head_start": "text", "model.class_vectors": str(path)})


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x93NUMPY"])
@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_files_that_hold_no_vectors(tmp_path, content, ending):
    path = tmp_path / f"v.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        class_vectors.of_file(str(path), ("a", "b"))
    with pytest.raises(DataError, match="cannot be read"):
        class_vectors.of_file(f"{path}.missing", ("a", "b"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"model.head_start": "text", "model.classifier": "linear"}, "head_start=text needs model.classifier=cosine"),
     ({"model.head_start": "text", "model.standardize": True}, "model.standardize=True"),
     ({"model.head_start": "text", "model.freeze": 0}, "head_start=text needs a frozen backbone"),
     ({"model.template": "a photo"}, "must hold {name}"), ({"model.template": "{name}|"}, "must hold {name}"),
     ({"model.class_vectors": "v.npy"}, "is for model.head_start=text")],
)  # fmt: skip
def test_fields_that_do_not_belong_together(place, fields, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        start(place, **fields)


def test_towers_that_there_are_not(place, tensors, tmp_path):
    section = types.SimpleNamespace
    with pytest.raises(ConfigError, match="dinov2_small has no text tower; those with one: clip_base"):
        text.find(section(text="", pretrained="dinov2_small"))
    with pytest.raises(ConfigError, match=r"there is no text tower; pass model\.text=FILE"):
        text.find(section(text="", pretrained=str(tmp_path)))
    image = {name: value for name, value in tensors.items() if name.startswith("visual.")}
    save_file({name: np.ascontiguousarray(value) for name, value in image.items()}, tmp_path / "image.safetensors")
    with pytest.raises(ConfigError, match="it holds no text tower, but"):
        text.read(text.Place(tmp_path / "image.safetensors", place))
    with pytest.raises(ConfigError, match=r"3 classes have no words for a name \(1, 02, n01440764\)"):
        text.check_names(["cat", "1", "02", "n01440764", "A320", "\u732b"])


def test_towers_come_from_the_hub(place, monkeypatch):
    asked = []
    monkeypatch.setattr(pretrained, "from_hub", lambda name: asked.append(name) or place / name.rpartition("/")[2])
    found = text.find(types.SimpleNamespace(text="", pretrained="siglip_base"))
    assert asked == ["timm/ViT-B-16-SigLIP/open_clip_model.safetensors", "timm/ViT-B-16-SigLIP/tokenizer.json"]
    assert found.folder == place
    assert TEXT["clip_base"] == NAMED["clip_base"].weights  # one file has both towers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--backbone=dinov2_small"], "--backbone=dinov2_small has no text tower"),
     (["--template=a photo"], "--template=a photo must hold {name}"),
     (["--classes=missing.txt"], "missing.txt"), (["--out=x.txt"], "must end in .csv or .jsonl"),
     (["--top=0"], "--top=0 must be at least 1"), (["--classes=NAMES"], "has a name twice")],
)  # fmt: skip
def test_arguments_that_cannot_be(place, tmp_path, arguments, words):
    (tmp_path / "twice.txt").write_text("dog\ncat\ndog\n")
    given = [argument.replace("NAMES", str(tmp_path / "twice.txt")) for argument in arguments]
    message, code = zero(place, place / "data" / "test", *given)
    assert code == 1 and words in message


def test_folders_that_are_not_all_classes(place, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ntable\n")
    message, code = zero(place, place / "data" / "test", f"--classes={tmp_path}/names.txt")
    assert code == 1 and "2 classes that the model does not know" in message
    message, code = zero(place, place / "data")
    assert code == 1 and "pass one of them" in message
    message, code = zero(place, next((place / "data" / "test" / "dog").iterdir()))
    assert code == 1 and "--classes=FILE is missing" in message
