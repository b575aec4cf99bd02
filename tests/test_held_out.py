"""What may be calibrated on, and files of arrays that somebody else may have made."""

import io
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from ncl_jax.config import base_config
from ncl_jax.data.dataset import Facts
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.runs import trust
from ncl_jax.runs.held_out import HeldOut, check_apart
from ncl_jax.runtime import arrays
from ncl_jax.runtime.arrays import Wanted
from ncl_jax.storage.directory import RunDir

WANTED = {"a": Wanted(np.float32, 2, 0, 1), "b": Wanted(np.int32, 1)}


def files(root, *names):
    """Files whose content is their number."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name[-5])
    return Split(Files(root, np.array(names), np.zeros(len(names), int)), np.zeros(len(names), np.int32))


def test_images_that_were_trained_on_are_refused(tmp_path):
    train = files(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    with pytest.raises(DataError, match="2 of 2 images of the val split are training images"):
        check_apart(train, files(tmp_path, "a/1.jpg", "b/3.jpg"))
    with pytest.raises(DataError, match="2 of 2 images"):  # copies
        check_apart(train, files(tmp_path / "val", "a/1.jpg", "c/2.jpg"))
    others = files(tmp_path, "a/4.jpg", "b/5.jpg")
    check_apart(train, others)
    (tmp_path / "b/3.jpg").unlink()
    (tmp_path / "b/5.jpg").unlink()
    check_apart(train, others)  # nothing is known of files that have gone
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="3 of 4 images"):
        check_apart(Split(pixels[:8], np.zeros(8, np.int32)), Split(pixels[5:], np.zeros(4, np.int32)))
    check_apart(Split(pixels[:5], np.zeros(5, np.int32)), Split(pixels[5:], np.zeros(4, np.int32)))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_calibration_is_under_the_training_prior(power):
    """Scores of a classifier that is calibrated for its own prior, and three times too sure."""
    random, counts = np.random.default_rng(0), np.array([600, 60])
    facts = Facts("x", (8, 8, 3), ("a", "b"), tuple(counts), "0")
    prior = counts / counts.sum()
    labels = random.choice(2, 4000, p=prior)
    x = random.normal(size=4000) + 2 * labels
    likelihoods = np.stack([-((x - 0) ** 2) / 2, -((x - 2) ** 2) / 2], 1)
    own = counts.astype(float) ** power
    found = trust.make_calibration(HeldOut(3 * (likelihoods + np.log(own)), labels, "val split"), facts, power)
    assert found.temperature == pytest.approx(3, rel=0.1)
    joint = np.exp(likelihoods) * prior
    table = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(found.true, table[np.arange(4000), labels], atol=0.05)
    np.testing.assert_allclose(found.means, table.mean(0), atol=0.02)


def packed(**content):
    content = {"a": np.full((2, 3), 0.5, np.float32), "b": np.arange(3, dtype=np.int32)} | content
    return arrays.packed({name: array for name, array in content.items() if array is not None})


def test_arrays_are_read_as_they_were_written(tmp_path):
    (tmp_path / "x.npz").write_bytes(packed(b=np.arange(3, dtype=np.int64)))
    found = arrays.read(tmp_path / "x.npz", WANTED, 1000)
    assert found["a"].shape == (2, 3) and found["b"].dtype == np.int32 and found["b"].tolist() == [0, 1, 2]


BAD = {
    "one is missing": packed(b=None),
    "another number of axes": packed(a=np.zeros(3, np.float32)),
    "another kind": packed(a=np.zeros((2, 3), np.int32)),
    "out of range": packed(a=np.full((2, 3), 2.0, np.float32)),
    "not a number": packed(a=np.full((2, 3), np.nan, np.float32)),
    "more than allowed": packed(b=np.zeros(10**5, np.int32)),
    "cut short": packed()[:-30],
    "nothing": b"",
    "no archive": bytes(1000),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_such_arrays(tmp_path, name):
    (tmp_path / "x.npz").write_bytes(BAD[name])
    with pytest.raises(Exception, match=r".+|^$"):
        arrays.read(tmp_path / "x.npz", WANTED, 2000)


def test_objects_are_not_unpickled(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([[{}]], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", file.getvalue())
        archive.writestr("b.npy", file.getvalue())
    with pytest.raises(ValueError, match="object"):
        arrays.read(tmp_path / "x.npz", WANTED, 2000)


@pytest.mark.parametrize(("step", "kept"), [(4, True), (3, False)])
def test_only_the_newest_checkpoints_calibration_is_kept(tmp_path, step, kept):
    loaded = SimpleNamespace(step=step, directory=SimpleNamespace(last_step=lambda: 4))
    trust._keep(loaded, tmp_path / "calibration.npz", {"a": np.zeros(2)})
    assert (tmp_path / "calibration.npz").exists() is kept


def test_what_was_calibrated_for_a_deleted_run_is_not_the_next_ones(tmp_path):
    directory = RunDir(tmp_path / "run")
    kept = (directory.calibration, directory.known, directory.temperature, directory.out_of_fold)
    data = SimpleNamespace(facts=Facts("x", (8, 8, 3), ("a",), (3,), "0"), listing=list, left_out=())
    for has_begun in (True, False):
        (directory.checkpoints / "3").mkdir(parents=True) if has_begun else shutil.rmtree(directory.checkpoints)
        for path in kept:
            path.write_bytes(b"x")
        directory.begin(base_config(), data, {})
        assert {path.exists() for path in kept} == {has_begun}
