"""Files of weights and CIFAR's pickles that are made to do harm: what they can name, how much they can take.

Every row would read outside of memory, end the process, take memory that its size does not account for, or never end.
"""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import types
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from test_sources import LAYOUT, files, member, packed, unpacked
from test_weights import Call, Global, Stored, dump, write_legacy, write_zip

from ncl_jax.data.sources import cifar_archive, tfds, tfds_files
from ncl_jax.errors import ConfigError, DataError
from ncl_jax.runs import import_authors
from ncl_jax.runtime import pickles
from ncl_jax.weights import names, torch_names
from ncl_jax.weights.read import digest, read_weights

PEAK = 24 << 20  # bytes that reading a file of less than one megabyte may take


def peak_of(read, *arguments):
    """What reading a file gives, or its DataError, and how much memory it took."""
    tracemalloc.start()
    try:
        return read(*arguments), tracemalloc.get_traced_memory()[1]
    except DataError as error:
        assert not isinstance(error.__cause__, MemoryError | RecursionError)
        assert "\n" not in str(error) and len(str(error)) < 1000
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Pickles, opcode by opcode


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def shared(depth):
    """A tuple of tuples of tuples, each twice the one before: nothing to write down, 2^depth to walk through."""
    return b")" + b"q\x00h\x00\x86" * depth


def plain(body):
    """A pickle of protocol 2."""
    return b"\x80\x02" + body + b"."


ZERO, STORAGE = text("0"), text("storage")


def stored(count, key=ZERO, kind=STORAGE):
    return b"(" + kind + b"ctorch\nFloatStorage\n" + key + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"


def tensor(count, shape, strides):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored(count) + b"K\x00" + shape + strides + b"tR"


def mapping(*items):
    return b"}(" + b"".join(items) + b"u"


ONE = b"K\x01\x85"
PAIRS = b"](" + b"".join(b"]" + b"(" + text(str(i)) + b"Ne" for i in range(2000)) + b"e"
FIELDS = mapping(text("names"), b"](" + text("a") + b"e", text("formats"), b"](" + text("V16") + b"e")[2:]
LIES = (
    b"ccollections\nOrderedDict\n)R(" + FIELDS + b"}" + text("itemsize") + b"K\x01sb"
)  # a type of 16 bytes that says 1

REFUSED = {
    "a storage whose type is set": mapping(
        text("x"), tensor(16, b"K\x10\x85", ONE), text("y"), stored(16) + b"N}" + text("dtype") + LIES + b"s\x86b"
    ),
    "a key of 120,000 tuples in each other": mapping(b")" + b"\x85" * 120_000, b"N"),
    "a key whose hash takes 2^60 steps": mapping(shared(60), b"N"),
    "keys that all have one hash": mapping(
        *(b"\x8a\x14" + (i * (2**61 - 1) << 61).to_bytes(20, "little") + b"N" for i in range(3000))
    ),
    "an OrderedDict with such a key": b"ccollections\nOrderedDict\n](" + shared(60) + b"N\x86e\x85R",
    "2,000 tensors over one storage": mapping(
        *(text(str(i)) + tensor(16384, b"M\x00\x40\x85", ONE) for i in range(2000))
    ),
    "a shape that is 2^60 long to show": mapping(text("x"), tensor(4, shared(60), ONE)),
    "strides that are 2^60 long to show": mapping(text("x"), tensor(4, ONE, shared(60) + b"\x85")),
    "a shape of 100,000 dimensions": mapping(text("x"), tensor(4, b"(" + b"K\x01" * 100_000 + b"t", ONE)),
    "a kind of storage that is 2^60 long to show": mapping(text("x"), stored(4, kind=shared(60))),
    "a key of a storage that is 2^60 long to show": mapping(text("x"), stored(4, key=shared(60))),
    "a storage of two sizes": mapping(text("x"), tensor(4, ONE, ONE), text("y"), tensor(5, ONE, ONE)),
    "one list made a dictionary 2,000 times": PAIRS
    + b"q\x00ccollections\nOrderedDict\nq\x01]("
    + b"h\x01h\x00\x85R" * 2000
    + b"e",
    "a name with a line break": b"\x8c\x03a\nb\x8c\x02\x1b[\x93",
    "a name of a megabyte": b"c" + b"a" * (1 << 20) + b"\nb\n",
    "a tensor with a line break in its name": mapping(text("a\nb"), tensor(4, ONE, ONE)),
    "a tensor with a name of 10,000 characters": mapping(text("a." * 5000), tensor(4, ONE, ONE)),
}
HARMLESS = {  # they may be read
    "a memo of half a billion places": mapping(text("x"), tensor(4, ONE, ONE), text("y") + b"Nr\xff\xff\xff\x1f"),
    "a value of 2^60 parts": mapping(text("x"), tensor(4, ONE, ONE), text("y"), shared(60)),
    "a stride that is never taken": mapping(text("x"), tensor(4, ONE, b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85")),
    "attributes of an OrderedDict": b"ccollections\nOrderedDict\n)R"
    + b"(" + text("x") + tensor(4, ONE, ONE) + b"u}" + text("__class__") + b"Nsb",
}  # fmt: skip


def write(form, path, body):
    """A file whose pickle has this body, and a storage of numbers."""
    shape = lambda _: None  # noqa: E731
    count = 16384 if b"\x00\x40\x85" in body else 4
    tensors = {"0": np.zeros(count, np.float32)} if b"FloatStorage" in body else {}
    if form == "zip":
        write_zip(path, shape, tensors=tensors, **{"data.pkl": plain(body)})
    else:
        write_legacy(path, shape, tensors=tensors)
        path.write_bytes(path.read_bytes().replace(dump(None), plain(body), 1))


BOTH = ("a key whose hash takes 2^60 steps", "2,000 tensors over one storage", "a storage of two sizes")


@pytest.mark.parametrize(("form", "name"), [*(("zip", name) for name in REFUSED), *(("legacy", name) for name in BOTH)])
def test_a_pickle_that_is_refused(tmp_path, form, name):
    write(form, tmp_path / "w.pth", REFUSED[name])
    found, peak = peak_of(read_weights, tmp_path / "w.pth")
    assert isinstance(found, DataError) and "w.pth" in str(found)
    assert peak < PEAK


@pytest.mark.parametrize("name", HARMLESS)
def test_a_pickle_that_costs_nothing(tmp_path, name):
    write("zip", tmp_path / "w.pth", HARMLESS[name])
    found, peak = peak_of(read_weights, tmp_path / "w.pth")
    assert isinstance(found, dict) or "holds no dictionary of tensors" in str(found)
    assert peak < PEAK


def test_the_number_of_values_is_bounded(monkeypatch):
    assert pickles.load(io.BytesIO(plain(b"]" * 999)), {}, "") == []
    monkeypatch.setattr(pickles, "MOST_STEPS", 999)
    with pytest.raises(DataError, match="more than 999 values"):
        pickles.load(io.BytesIO(plain(b"]" * 999)), {}, "")


def test_python_2s_ordered_dictionary(tmp_path):
    body = b"ccollections\nOrderedDict\n](](" + text("x") + tensor(4, ONE, ONE) + b"ee\x85R"
    for form in ("zip", "legacy"):
        write(form, tmp_path / "w.pth", body)
        assert read_weights(tmp_path / "w.pth")["x"].tolist() == [0]


# The archive around it


def write_parts(path, parts):
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
        for name, content in parts:
            archive.writestr(f"archive/{name}", content)


VIEW = Call("torch._utils", "_rebuild_tensor_v2", Stored("storage", Global("torch", "FloatStorage"), "0", "cpu", 4),
            0, (4,), (1,))  # fmt: skip
PARTS = [("data.pkl", dump({"x": VIEW})), ("data/0", bytes(16))]


def overlapping(path):
    """100 storages, each of which holds the next one, header and all: half a megabyte that is there 100 times."""
    pids = [Stored("storage", Global("torch", "ByteStorage"), str(i), "cpu", 1) for i in range(100)]
    pickled = dump([Call("torch._utils", "_rebuild_tensor_v2", pid, 0, (1,), (1,)) for pid in pids])
    content, parts = bytes(1 << 19), []
    for name in [*(f"archive/data/{i}" for i in range(100)), "archive/data.pkl"]:
        content = pickled if name.endswith("pkl") else content
        fields = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, zlib.crc32(content), *[len(content)] * 2, len(name), 0)
        content = b"PK\x03\x04" + fields + name.encode() + content
        parts.append((name.encode(), fields, content))
    body = parts[-1][2] + parts[-2][2]
    starts = [len(body) - len(content) for _, _, content in parts[:-1]] + [0]
    entries = [
        b"PK\x01\x02\x14\x00" + fields + struct.pack("<3H2I", 0, 0, 0, 0, start) + name
        for (name, fields, _), start in zip(parts, starts, strict=True)
    ]
    directory = b"".join(entries)
    end = struct.pack("<4H2IH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\x05\x06" + end)


def lying(path, field, value):
    """A part's size in the archive's directory is another one."""
    write_parts(path, PARTS)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + field
    content[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def twice(path):
    write_parts(path, [*PARTS, ("data/0", bytes(16))])


def legacy_of(count):
    """A legacy file whose storage is said to be of `count` numbers, in the pickle and behind it."""

    def write(path):
        pid = Stored("storage", Global("torch", "FloatStorage"), "0", "cpu", count, None)
        value = {"x": Call("torch._utils", "_rebuild_tensor_v2", pid, 0, (4,), (1,))}
        write_legacy(path, lambda _: value, tensors={"x": np.zeros(4, np.float32)})
        content = path.read_bytes()
        path.write_bytes(content[:-24] + struct.pack("<q", count) + bytes(16))

    return write


ARCHIVES = {
    "parts that lie over each other": overlapping,
    "a name twice": twice,
    "a part said to be of four gigabytes": lambda path: lying(path, 24, 2**32 - 2),
    "a part said to be stored in four gigabytes": lambda path: lying(path, 20, 2**32 - 2),
    "a legacy storage of 16 gigabytes": legacy_of(2**32),
    "a legacy storage of 2^60 numbers": legacy_of(2**60),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_refused(tmp_path, name):
    ARCHIVES[name](tmp_path / "w.pth")
    found, peak = peak_of(read_weights, tmp_path / "w.pth")
    assert isinstance(found, DataError) and "w.pth" in str(found)
    assert peak < PEAK


def safetensors_of(header, body=b"", length=None):
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def entry(kind="F32", shape="[1]", ends="[0,4]", name="x"):
    return f'{{"{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":{ends}}}}}'.encode()


SAFETENSORS = {
    "a header of 100 gigabytes": safetensors_of(entry(), bytes(4), 100 << 30),
    "a header of 100,000 objects in each other": safetensors_of(b'{"a":' * 100_000),
    "a type of eight bits": safetensors_of(entry("F8_E5M2", "[4]"), bytes(4)),
    "a type of four bits": safetensors_of(entry("F4", "[8]"), bytes(4)),
    "complex numbers": safetensors_of(entry("C64", "[1]", "[0,8]"), bytes(8)),
    "a name with a line break": safetensors_of(entry(name="a\\nb"), bytes(4)),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_safetensors_file_that_is_refused(tmp_path, name):
    (tmp_path / "w.st").write_bytes(SAFETENSORS[name])
    found, peak = peak_of(read_weights, tmp_path / "w.st")
    assert isinstance(found, DataError) and "w.st" in str(found)
    assert peak < PEAK


@pytest.mark.parametrize("read", [read_weights, digest])
def test_what_is_no_file(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (("pipe", "not a regular file"), ("", "cannot be read"), ("missing", "cannot be read")):
        with pytest.raises(DataError, match=said):
            read(tmp_path / path)


def test_names_that_no_network_has():
    tensors = {"a.weight": np.ones(3, np.float32), "a.scale.weight": np.ones(3, np.float32)}
    for pair in (tensors, dict(reversed(tensors.items()))):
        with pytest.raises(ValueError, match=r"a\.scale|do not fit"):
            torch_names.check_same_structure(torch_names.from_torchvision(pair), {"params": {"backbone": {}}})
    for stem in ((3,), (2, 2)):
        shapes = {"conv1.weight": stem, "layer1.0.conv1.weight": (3,), "layer1.0.conv2.weight": (3,)}
        shapes["layer1.0.conv3.weight"] = (3,)
        assert "of 4 tensors" in names.describe({name: np.ones(shape) for name, shape in shapes.items()})


# CIFAR's archives


def array_of(shape, content):
    state = b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89" + content + b"t"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state + b"b"


def nested(depth, width):
    """Lists of lists, each of `width` times the one inside."""
    body = b"](" + b"K\x01" * width + b"eq\x00"
    for _ in range(depth - 1):
        body = b"](" + body + b"h\x00" * (width - 1) + b"eq\x00"
    return body


def key(name):
    return b"U" + bytes([len(name)]) + name


GOOD = key(b"data") + array_of(b"K\x01M\x00\x0c\x86", b"T\x00\x0c\x00\x00" + bytes(3072))
LABELS = key(b"labels") + b"]K\x01a"
HUGE = b"X" + struct.pack("<I", 1 << 19) + b"a" * (1 << 19) + b"q\x00c_codecs\nencode\nq\x01"
CIFAR = {
    "labels in lists of 300 by 300 by 300": mapping(GOOD, key(b"labels") + nested(3, 300)),
    "images in lists of 384 by 384 by 384": mapping(key(b"data") + nested(3, 384), LABELS),
    "a key of 120,000 tuples in each other": mapping(b")" + b"\x85" * 120_000 + b"N", GOOD, LABELS),
    "a key whose hash takes 2^60 steps": mapping(shared(60) + b"N", GOOD, LABELS),
    "a name of a type that is 2^60 long to show": b"cnumpy\ndtype\n(" + shared(60) + b"tR",
    "an encoding that is 2^60 long to show": b"c_codecs\nencode\n(" + text("a") + shared(60) + b"tR",
    "one text made bytes 500 times": HUGE + b"](" + (b"h\x01h\x00" + text("latin1") + b"\x86R") * 500 + b"e",
    "a shape whose product is a list": array_of(b"(J\x00\x00\x00\x10](K\x00K\x00K\x00K\x00et", key(b"x")),
    "a memo of half a billion places": mapping(GOOD, LABELS, key(b"more") + b"Nr\xff\xff\xff\x1f"),
}  # fmt: skip


@pytest.mark.parametrize("name", CIFAR)
def test_a_pickle_of_cifars(tmp_path, name):
    unpacked(tmp_path, files() | {"data_batch_1": plain(CIFAR[name])})
    found, peak = peak_of(cifar_archive.read, LAYOUT, tmp_path)
    assert isinstance(found, DataError) != (name == "a memo of half a billion places")
    assert peak < PEAK


def header(name, kind=tarfile.REGTYPE, size=0):
    return member(f"{LAYOUT.folder}/{name}", kind, size=size).tobuf(tarfile.GNU_FORMAT)


TARS = {
    "a member said to be of eight gigabytes": header("readme", size=8 << 30),
    "a member of a negative size": header("readme", size=-512),
    "a sparse member": header("test_batch", tarfile.GNUTYPE_SPARSE),
    "a long name of four gigabytes": header("x", tarfile.GNUTYPE_LONGNAME, 4 << 30),
    "times and owners of four gigabytes": header("x", tarfile.XHDTYPE, 4 << 30),
    "times and owners for all, of four gigabytes": header("x", tarfile.XGLTYPE, 4 << 30),
    "a header that is cut short": header("readme")[:100],
    "more than all of CIFAR": header("readme", size=1 << 20) + bytes(1 << 20) + header("x", size=1 << 20)
    + bytes(1 << 20),
    "no end behind the end": bytes(1 << 21),
}  # fmt: skip


@pytest.mark.parametrize("name", TARS)
def test_a_tar_file_that_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cifar_archive, "MOST_OF_ALL", 1 << 20)
    packed(tmp_path / LAYOUT.archive, files())
    with tarfile.open(tmp_path / LAYOUT.archive) as tar:
        content = b"".join(header(m.name.rpartition("/")[2], size=m.size) + padded(tar, m) for m in tar if m.isreg())
    (tmp_path / LAYOUT.archive).write_bytes(gzip.compress(content + TARS[name], 1))
    found, peak = peak_of(cifar_archive.read, LAYOUT, tmp_path / LAYOUT.archive)
    assert isinstance(found, DataError) and LAYOUT.archive in str(found)
    assert peak < PEAK


def padded(tar, info):
    content = tar.extractfile(info).read()
    return content + bytes(-len(content) % 512)


def test_cifars_files_that_are_none(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / LAYOUT.archive)
    with pytest.raises(DataError, match="not a regular file"):
        cifar_archive.read(LAYOUT, tmp_path / LAYOUT.archive)
    unpacked(tmp_path / "folder", files())
    monkeypatch.setattr(cifar_archive, "MOST_OF_A_FILE", 10_000)
    with pytest.raises(DataError, match="data_batch_1 is larger than 10,000 bytes"):
        cifar_archive.read(LAYOUT, tmp_path / "folder")


def test_an_archive_as_tar_programs_of_today_write_it(tmp_path):
    """With times and owners before each member."""
    unpacked(tmp_path / LAYOUT.folder, files())
    with tarfile.open(tmp_path / LAYOUT.archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / LAYOUT.folder, LAYOUT.folder)
    with gzip.open(tmp_path / LAYOUT.archive) as file:
        assert b"mtime=" in file.read()
    first, second = (cifar_archive.read(LAYOUT, tmp_path / name) for name in (LAYOUT.archive, LAYOUT.folder))
    np.testing.assert_array_equal(first[0], second[0])


@pytest.mark.parametrize("content", [b'{"a":' * 100_000, b'{"name": {"a": 1}}', None])
def test_a_prepared_folder_that_is_none(tmp_path, content):
    place = tmp_path / "dataset_info.json"
    os.mkfifo(place) if content is None else place.write_bytes(content)
    assert tfds_files.prepared_name(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"MOCO.0.queue": np.ones(4, np.float32)},
        {"MOCO.1.queue": np.ones((3, 5), np.float32)},
        {"MOCO.1.queue": np.float32(1)},
        {"MOCO.0.queue_ptr": np.array([1, 2])},
        {"MOCO.0.queue_ptr": np.array(-1)},
        {"MOCO.0.queue_ptr": np.array(4)},
        {"MOCO.0.queue_ptr": np.array(np.nan)},
    ],
)
def test_queues_that_are_none(changes):
    """Of a checkpoint of the authors' program, for two experts with queues of four keys of three numbers."""
    queue = {f"MOCO.{e}.queue": np.ones((3, 4), np.float16) for e in range(2)}
    good = queue | {"MOCO.0.queue_ptr": np.array([3])}
    state = types.SimpleNamespace(memory={"contrast": types.SimpleNamespace(keys=np.ones((2, 4, 3)))})
    found = import_authors._queue(good, state, "w.pth")
    assert found.keys.dtype == np.float32 and found.position == 3
    with pytest.raises(ConfigError, match=r"w\.pth has .*queue"):
        import_authors._queue(good | changes, state, "w.pth")


@pytest.mark.parametrize(("name", "lacking"), [("conv1.weight", "batch_stats"), ("bn1.running_mean", "params")])
def test_weights_of_one_kind_alone(name, lacking):
    """A state dictionary without running statistics, or with nothing else."""
    shape = (4, 3, 3, 3) if name == "conv1.weight" else (4,)
    tensors = {f"{module}.0.{name}": np.ones(shape, np.float32) for module in ("backbone", "classifier")}
    expected = {"params": {}, "batch_stats": {}, lacking: {"backbone": {"x": np.ones(2, np.float32)}}}
    with pytest.raises(ConfigError, match=rf"FILE does not fit the configuration's model: .*{lacking}.*got nothing"):
        import_authors._fitting(tensors, torch_names.SUPERVISED, expected, "FILE")


def test_columns_that_were_kept_and_damaged(tmp_path):
    """What is kept of a prepared folder is read again where it is damaged, or far larger than its file."""
    columns, place = {"label": np.arange(5)}, tmp_path / "kept.npz"
    np.savez(place, **columns)
    good = place.read_bytes()
    assert tfds._kept(place, ("label",))["label"].tolist() == [0, 1, 2, 3, 4]
    np.savez_compressed(tmp_path / "bomb.npz", label=np.zeros(1 << 23))
    two_sizes, single = io.BytesIO(), io.BytesIO()
    np.savez(two_sizes, label=np.arange(5), filename=np.arange(4))
    np.save(single, np.arange(5))
    bad = [b"", good[:100], good[:-1], (tmp_path / "bomb.npz").read_bytes(), single.getvalue(), two_sizes.getvalue()]
    for content in bad:
        place.write_bytes(content)
        found, peak = peak_of(tfds._kept, place, ("label", "filename") if content == bad[-1] else ("label",))
        assert found is None and peak < PEAK
