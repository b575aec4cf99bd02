"""CIFAR's archives: both layouts, both kinds of pickle, the download, and files that are damaged or mean harm."""

import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import tiny

from ncl_jax.data import sources
from ncl_jax.data.sources import cifar_archive, cifar_pickle

LAYOUT = cifar_archive.LAYOUTS["cifar10"]
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def py2_pickle(value):
    """What Python 2's cPickle writes for `value` in protocol 2 (without the memo): byte strings, numpy's old module."""

    def string(text):
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text

    def item(value):
        if isinstance(value, bytes):
            return string(value)
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(item, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(item(key) + item(entry) for key, entry in value.items()) + b"u"
        make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + item(0) + b"\x85" + string(b"b") + b"\x87R"
        dtype = b"cnumpy\ndtype\n" + string(b"u1") + item(0) + item(1) + b"\x87R"
        dtype += b"(" + item(3) + string(b"|") + b"NNN" + item(-1) + item(-1) + item(0) + b"tb"
        shape = item(value.shape[0]) + item(value.shape[1]) + b"\x86"
        return make + b"(" + item(1) + shape + dtype + b"\x89" + string(value.tobytes()) + b"tb"

    return b"\x80\x02" + item(value) + b"."


def py3_pickle(value):
    return pickle.dumps(value, 2)


def batch(seed, count=6):
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (count, 3072), np.uint8)
    return {b"batch_label": b"b", b"labels": generator.integers(0, 10, count).tolist(), b"data": data}


def files(dump=py3_pickle, names=NAMES):
    """Contents of a small CIFAR-10, by file name."""
    contents = {name: dump(batch(seed)) for seed, name in enumerate((*LAYOUT.train_files, LAYOUT.test_file))}
    return {**contents, LAYOUT.names_file: dump({b"label_names": [name.encode() for name in names]})}


def unpacked(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def packed(path, contents, *extra):
    """Writes a .tar.gz with a folder, the files and `extra` members."""
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(LAYOUT.folder)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{LAYOUT.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member, io.BytesIO(b"\0" * member.size))


def load(directory):
    return tiny.load_source("cifar10", directory, download=False)


def assert_same(first, second):
    assert first.class_names == second.class_names
    for name in ("train", "test"):
        for a, b in zip(first.splits[name], second.splits[name], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dump", [py2_pickle, py3_pickle])
def test_every_layout_gives_the_same_arrays(tmp_path, dump):
    contents = files(dump)
    unpacked(tmp_path / "a" / LAYOUT.folder, contents)
    packed(tmp_path / LAYOUT.archive, contents)
    data = load(tmp_path)
    assert_same(data, load(tmp_path / "a"))
    assert_same(data, load(tmp_path / "a" / LAYOUT.folder))
    batches = [batch(seed) for seed in range(6)]
    rows = np.concatenate([b[b"data"] for b in batches[:5]])
    np.testing.assert_array_equal(data.splits["train"].images[..., 1], rows.reshape(-1, 3, 32, 32)[:, 1])
    np.testing.assert_array_equal(data.splits["train"].labels, np.concatenate([b[b"labels"] for b in batches[:5]]))
    np.testing.assert_array_equal(data.splits["test"].labels, batches[5][b"labels"])
    assert data.splits["train"].images.dtype == np.uint8 and data.splits["test"].labels.dtype == np.int32
    assert data.class_names == tuple(NAMES)


def test_cifar100_reads_fine_labels(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("train", "test"):
        data = generator.integers(0, 256, (4, 3072), np.uint8)
        labels = {b"fine_labels": [0, 99, 5, 7], b"coarse_labels": [1, 1, 1, 1]}
        (tmp_path / name).write_bytes(py2_pickle({b"data": data, **labels}))
    (tmp_path / "meta").write_bytes(py2_pickle({b"fine_label_names": [b"c%d" % i for i in range(100)]}))
    data = tiny.load_source("cifar100", str(tmp_path), download=False)
    assert data.splits["train"].labels.tolist() == [0, 99, 5, 7] and data.class_names[99] == "c99"


def test_column_major_array(tmp_path):
    contents = files()
    first = batch(0)
    contents["data_batch_1"] = pickle.dumps({**first, b"data": np.asfortranarray(first[b"data"])}, 2)
    unpacked(tmp_path / "a", files())
    unpacked(tmp_path / "b", contents)
    assert_same(load(tmp_path / "a"), load(tmp_path / "b"))


def test_unknown_name():
    with pytest.raises(sources.DataError, match="'cifar-10'.*folder, list, tfds, cifar10, cifar100"):
        tiny.load_source("cifar-10", "")


def test_missing_directory_says_what_to_put_where(tmp_path):
    with pytest.raises(sources.DataError) as error:
        load(tmp_path / "none")
    for part in (str(tmp_path / "none"), LAYOUT.archive, LAYOUT.url, LAYOUT.folder, "data_batch_5", "switched off"):
        assert part in str(error.value)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_missing_file_is_named(tmp_path, name):
    contents = files()
    del contents[name]
    unpacked(tmp_path / "a" / LAYOUT.folder, contents)
    packed(tmp_path / LAYOUT.archive, contents)
    for directory in (tmp_path, tmp_path / "a"):
        with pytest.raises(sources.DataError, match=f"lacks {name}"):
            load(directory)


def test_archive_is_read_where_the_folder_is_incomplete(tmp_path):
    (tmp_path / LAYOUT.folder).mkdir()
    packed(tmp_path / LAYOUT.archive, files())
    assert load(tmp_path).splits["train"].images.shape == (30, 32, 32, 3)


def test_truncated_archive(tmp_path):
    path = tmp_path / LAYOUT.archive
    packed(path, files())
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) // 3, len(content) // 2, len(content) - 20_000):
        path.write_bytes(content[:length])
        with pytest.raises(sources.DataError, match="cut short|lacks"):
            load(tmp_path)
    assert path.exists()


def test_flipped_bit_in_archive(tmp_path):
    path = tmp_path / LAYOUT.archive
    packed(path, files())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(sources.DataError):
        load(tmp_path)


@pytest.mark.parametrize("dump", [py2_pickle, py3_pickle])
def test_every_truncated_pickle_is_an_error(dump):
    content = dump({b"labels": [1, 2], b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"name": b"b"})
    assert cifar_pickle.load(content, "whole")[b"labels"] == [1, 2]
    for length in range(len(content)):
        with pytest.raises(sources.DataError, match="part is cut short"):
            cifar_pickle.load(content[:length], "part")


class Harm:
    """Makes a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("nest", ["whole", "key", "list", "array"])
def test_malicious_pickle_is_refused(tmp_path, nest, protocol):
    harm = Harm(tmp_path / "harmed")
    value = {
        "whole": harm,
        "key": {**batch(0), b"more": harm},
        "list": {**batch(0), b"labels": [harm]},
        "array": {**batch(0), b"data": np.array([harm], object)},
    }[nest]
    contents = files()
    contents["data_batch_2"] = pickle.dumps(value, protocol)
    unpacked(tmp_path, contents)
    with pytest.raises(sources.DataError, match="data_batch_2.*refused to unpickle"):
        load(tmp_path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"(ios\nsystem\n.", "opcode b'i'"),
        (b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", "without _reconstruct"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", "array of type 'O'"),
        (b"c_codecs\nencode\n(X\x02\x00\x00\x00abX\x03\x00\x00\x00hextR.", "encoded as 'hex'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(K\x09K\x09tNNU\x01atb.", "does not fill it"),
        (b"Pid\n.", "opcode b'P'"),
        (b"U\x02idQ.", "refused to unpickle a reference to something outside"),
    ],
)
def test_nothing_but_values_and_arrays(stream, message):
    with pytest.raises(sources.DataError, match=message):
        cifar_pickle.load(stream, "file")


def test_pickle_cannot_modify_the_stand_ins():
    # BUILD sets attributes of what it is given; here, of the function that stands for numpy's dtype.
    stream = b"cnumpy\ndtype\nN}(X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xu\x86b."
    with pytest.raises(sources.DataError):
        cifar_pickle.load(stream, "file")
    assert cifar_pickle._dtype.__name__ == "_dtype"


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "extra",
    [
        member("../escaped", size=3),
        member(f"{LAYOUT.folder}/../../escaped", size=3),
        member("/tmp/escaped", size=3),
        member("elsewhere/escaped", size=3),
        member(".", tarfile.DIRTYPE),
        member(f"{LAYOUT.folder}/data_batch_1", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{LAYOUT.folder}/data_batch_1", tarfile.LNKTYPE, "/etc/passwd"),
        member(f"{LAYOUT.folder}/device", tarfile.CHRTYPE),
        member(f"{LAYOUT.folder}/pipe", tarfile.FIFOTYPE),
    ],
)
def test_malicious_tar_member_is_refused(tmp_path, extra):
    packed(tmp_path / LAYOUT.archive, files(), extra)
    with pytest.raises(sources.DataError, match="only plain files in cifar-10-batches-py/ belong") as error:
        load(tmp_path)
    assert extra.name in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [LAYOUT.archive]


def test_folder_in_place_of_a_file(tmp_path):
    contents = files()
    del contents["test_batch"]
    packed(tmp_path / LAYOUT.archive, contents, member(f"{LAYOUT.folder}/test_batch", tarfile.DIRTYPE))
    with pytest.raises(sources.DataError, match="lacks test_batch"):
        load(tmp_path)


def test_dotted_member_names_are_plain(tmp_path):
    packed(tmp_path / LAYOUT.archive, files(), member(f"./{LAYOUT.folder}/readme.html", size=3))
    assert load(tmp_path).splits["train"].images.shape == (30, 32, 32, 3)


def test_wrong_number_of_class_names(tmp_path):
    unpacked(tmp_path, files(names=NAMES[:5]))
    with pytest.raises(sources.DataError, match="has a label [5-9], but only 5 class names"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"labels": [1, 2]}, "30 images, but labels of shape"),
        ({b"labels": [0, 0, 0, 0, 0, -1]}, "label -1"),
        ({b"labels": [2**40] * 6}, "labels"),
        ({b"labels": None}, "CIFAR batches"),
        ({b"labels": b"x"}, "CIFAR batches"),
        ({b"data": np.zeros((6, 3071), np.uint8)}, "CIFAR batches"),
        ({b"data": b"abc"}, "CIFAR batches"),
        ({b"data": [[300] * 3072] * 6}, "CIFAR batches"),
    ],
)
def test_wrong_content(tmp_path, change, message):
    contents = files()
    contents["data_batch_1"] = py3_pickle({**batch(0), **change})
    unpacked(tmp_path, contents)
    with pytest.raises(sources.DataError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("value", [[], {}, 7, {b"label_names": 3}, {b"label_names": [1]}])
def test_wrong_names_file(tmp_path, value):
    unpacked(tmp_path, {**files(), LAYOUT.names_file: pickle.dumps(value, 2)})
    with pytest.raises(sources.DataError, match="does not list class names"):
        load(tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An archive that can be downloaded from this machine; returns its MD5 sum."""
    (tmp_path / "server").mkdir()
    path = tmp_path / "server" / LAYOUT.archive
    packed(path, files())
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar_archive.LAYOUTS, "cifar10", LAYOUT._replace(url=path.as_uri(), md5=md5))
    return md5


def test_download(tmp_path, server):
    target = tmp_path / "new" / "data"
    data = tiny.load_source("cifar10", target)
    assert [path.name for path in target.iterdir()] == [LAYOUT.archive]
    (tmp_path / "server" / LAYOUT.archive).unlink()
    assert_same(data, tiny.load_source("cifar10", target))


def test_download_with_another_checksum(tmp_path, server, monkeypatch):
    monkeypatch.setitem(cifar_archive.LAYOUTS, "cifar10", cifar_archive.LAYOUTS["cifar10"]._replace(md5="0" * 32))
    target = tmp_path / "data"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(sources.DataError) as error:
        tiny.load_source("cifar10", target)
    assert server in str(error.value) and "0" * 32 in str(error.value)
    assert [path.name for path in target.iterdir()] == ["mine.txt"]


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setitem(cifar_archive.LAYOUTS, "cifar10", LAYOUT._replace(url="http://127.0.0.1:9/" + LAYOUT.archive))
    with pytest.raises(sources.DataError, match="cannot be downloaded.*put cifar-10-python.tar.gz"):
        tiny.load_source("cifar10", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_directory_cannot_be_made(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(sources.DataError, match="cannot be downloaded"):
        tiny.load_source("cifar10", tmp_path / "file" / "data")
