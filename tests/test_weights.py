"""Files of weights: every format, damage, and files that mean harm. The writer of PyTorch's formats is our own."""

import collections
import io
import json
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ncl_jax.errors import DataError
from ncl_jax.weights import torch_file
from ncl_jax.weights.read import read_weights

RNG = np.random.default_rng(0)
TENSORS = {
    "conv1.weight": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "layer1.0.bn1.bias": RNG.normal(size=5).astype(np.float32),
    "half": RNG.normal(size=(2, 3)).astype(np.float16),
    "brain": RNG.normal(size=3).astype(ml_dtypes.bfloat16),
    "double": RNG.normal(size=2),
    "bn1.num_batches_tracked": np.array(7),
    "mask": np.array([True, False]),
}
TYPES = {np.dtype(dtype): name for name, dtype in torch_file.DTYPES.items()}


class Global:
    """Pickles as a name, which need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as the call of a name."""

    def __init__(self, module, name, *arguments, state=None):
        self.function, self.arguments, self.state = Global(module, name), arguments, state


class Stored:
    """Pickles as the reference to a storage."""

    def __init__(self, *pid):
        self.pid = pid


class Pickler(pickle._Pickler):
    """Python's own pickler, which can be told to write names of modules that are not installed."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(b"c" + value.module.encode() + b"\n" + value.name.encode() + b"\n")
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(b"R")
            if value.state is not None:
                self.save(value.state)
                self.write(b"b")
        elif isinstance(value, Stored):
            self.save(value.pid)
            self.write(b"Q")
        else:
            super().save(value, save_persistent_id)


def dump(value):
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def rebuild(key, array, legacy=False, parameter=False):
    """What PyTorch's pickle says of a tensor."""
    strides = tuple(step // array.itemsize for step in array.strides)
    pid = ("storage", Global("torch", TYPES[array.dtype]), key, "cuda:0", array.size, *([None] if legacy else []))
    tensor = Call("torch._utils", "_rebuild_tensor_v2", Stored(*pid), 0, array.shape, strides, False, {})
    return Call("torch._utils", "_rebuild_parameter", tensor, True, {}) if parameter else tensor


def nested(values):
    """A checkpoint of a training program: data-parallel names, a dictionary around, and more than tensors."""
    renamed = {f"module.{name}": value for name, value in values.items()}
    best = Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f8", 0, 1, state=(3, "<")), b"12345678")
    return {"epoch": 90, "best": best, "state_dict": renamed, "arch": "resnet50", "more": [1.5, None, ("a", True)]}


def write_zip(path, shape=dict, parameter=False, tensors=TENSORS, **changes):
    values = {name: rebuild(str(i), value, parameter=parameter) for i, (name, value) in enumerate(tensors.items())}
    parts = {"data.pkl": dump(shape(values)), "version": b"3\n", "byteorder": b"little"}
    parts |= {f"data/{i}": value.tobytes() for i, value in enumerate(tensors.values())}
    with zipfile.ZipFile(path, "w", changes.pop("compression", zipfile.ZIP_STORED)) as archive:
        for name, content in (parts | changes).items():
            if content is not None:
                archive.writestr(f"archive/{name}", content)


def write_legacy(path, shape=dict, parameter=False, tensors=TENSORS, magic=torch_file.LEGACY_MAGIC, little=True):
    values = {
        name: rebuild(str(i), value, True, parameter) for i, (name, value) in enumerate(tensors.items())
    }  # fmt: skip
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    content = [dump(magic), dump(1001), dump(system), dump(shape(values)), dump([str(i) for i in range(len(tensors))])]
    for value in tensors.values():
        content.append(struct.pack("<q", value.size) + value.tobytes())
    path.write_bytes(b"".join(content))


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name].astype(np.float64), value.astype(np.float64))


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("shape", [dict, collections.OrderedDict, nested])
@pytest.mark.parametrize("form", WRITERS)
def test_pytorchs_formats(tmp_path, form, shape, parameter):
    WRITERS[form](tmp_path / "w.pth", shape, parameter)
    assert_same(read_weights(tmp_path / "w.pth"))


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_same(read_weights(tmp_path / "w.safetensors"))


def test_safetensors_that_begin_like_a_pickle(tmp_path):
    """Their first byte is the lowest of the header's length."""
    for name in ("x" * count for count in range(1, 100)):
        save_file({name: np.ones(3, np.float32)}, tmp_path / "w.safetensors")
        if (tmp_path / "w.safetensors").read_bytes()[0] == 0x80:
            break
    assert (tmp_path / "w.safetensors").read_bytes()[0] == 0x80
    assert_same(read_weights(tmp_path / "w.safetensors"), {name: np.ones(3, np.float32)})


def test_tensors_that_share_a_storage_and_lie_across_it(tmp_path):
    whole = np.arange(12, dtype=np.float32)
    pid = ("storage", Global("torch", "FloatStorage"), "0", "cpu", 12)
    make = lambda *view: Call("torch._utils", "_rebuild_tensor_v2", Stored(*pid), *view, False, {})  # noqa: E731
    values = {"transposed": make(0, (4, 3), (1, 4)), "part": make(5, (2,), (3,)), "empty": make(0, (0, 3), (3, 1))}
    write_zip(tmp_path / "w.pth", tensors={"x": whole}, **{"data.pkl": dump(values)})
    found = read_weights(tmp_path / "w.pth")
    np.testing.assert_array_equal(found["transposed"], whole.reshape(3, 4).T)
    assert found["part"].tolist() == [5, 8] and found["empty"].shape == (0, 3)


@pytest.mark.parametrize("form", [*WRITERS, "safetensors"])
def test_every_truncation_is_an_error(tmp_path, form):
    path = tmp_path / "w"
    save_file(TENSORS, path) if form == "safetensors" else WRITERS[form](path)
    content = path.read_bytes()
    for length in [*range(60), *range(60, len(content) - 1, 37), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=str(path)):
            read_weights(path)


STORAGE = Stored("storage", Global("torch", "FloatStorage"), "0", "cpu", 2)


def view(*arguments):
    return {"x": Call("torch._utils", "_rebuild_tensor_v2", STORAGE, *arguments)}


HARM = {
    "os.system": {"x": Call("os", "system", "touch HARMED")},
    "posix.system": {"x": Call("posix", "system", "touch HARMED")},
    "builtins.eval": {"x": Call("builtins", "eval", "open('HARMED', 'w')")},
    "builtins.getattr": {"x": Call("builtins", "getattr", {}, "keys")},
    "subprocess.Popen": {"x": Call("subprocess", "Popen", ["touch", "HARMED"])},
    "torch.load": {"x": Call("torch", "load", "other.pth")},
    "torch._utils._import_dotted_name": {"x": Call("torch._utils", "_import_dotted_name", "os.system")},
    "numpy.load": {"x": Call("numpy", "load", "other.npy")},
    "torch.FloatStorage.from_file": {"x": Call("torch", "FloatStorage.from_file", "/etc/passwd")},
    "a class in place of the module": {"x": Global("__main__", "Harm")},
    "a storage of another kind": {"x": Stored("file", Global("torch", "FloatStorage"), "0", "cpu", 2)},
    "a storage type that is called": {"x": Call("torch", "FloatStorage", 3)},
    "a stand-in that is changed": {"x": Call("torch._utils", "_rebuild_parameter", 1, state={"__call__": 1})},
    "a negative storage": {"x": Stored("storage", Global("torch", "FloatStorage"), "0", "cpu", -1)},
    "a tensor of no storage": {"x": Call("torch._utils", "_rebuild_tensor_v2", 3, 0, (2,), (1,))},
    "a tensor beyond its storage": view(1, (2,), (1,), False, {}),
    "a tensor before its storage": view(-1, (2,), (1,), False, {}),
    "a stride backwards": view(1, (2,), (-1,), False, {}),
    "a tensor far larger than its storage": view(0, (2**40,), (0,), False, {}),
    "a shape that does not fit its strides": view(0, (2,), (1, 1), False, {}),
    "a shape of text": view(0, ("2",), (1,), False, {}),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", HARM)
def test_harmful_files_are_refused(tmp_path, monkeypatch, form, name):
    monkeypatch.chdir(tmp_path)
    shape = lambda _: HARM[name]  # noqa: E731
    WRITERS[form](tmp_path / "w.pth", shape, tensors={"x": np.zeros(2, np.float32)})
    with pytest.raises(DataError, match="w.pth") as error:
        read_weights(tmp_path / "w.pth")
    if name in ("os.system", "builtins.eval", "torch.load"):
        assert f"refused to unpickle {name}" in str(error.value)
    assert os.listdir(tmp_path) == ["w.pth"]  # noqa: PTH208
    assert isinstance(torch_file._ALLOWED["torch._utils", "_rebuild_parameter"](5), int)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_refused(tmp_path, protocol):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harmed",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"x": Harm()}, protocol))
    with pytest.raises(DataError):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "its parts are compressed"),
        ({"byteorder": b"big"}, "big-endian"),
        ({"data/0": b"123"}, "a storage is cut short"),
        ({"data/0": None}, "cut short or damaged"),
        ({"data.pkl": None}, "cut short or damaged"),
        ({"data.pkl": dump([1, 2])}, "holds no dictionary of tensors"),
    ],
)
def test_what_is_wrong_with_a_zip(tmp_path, changes, said):
    write_zip(tmp_path / "w.pth", **changes)
    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / "w.pth")


def test_other_files(tmp_path):
    write_legacy(tmp_path / "other.pth", magic=1)
    write_legacy(tmp_path / "big.pth", little=False)
    for name in ("other.pth", "big.pth"):
        with pytest.raises(DataError, match="a pickle, but not of PyTorch"):
            read_weights(tmp_path / name)
    (tmp_path / "text").write_text("hello, this is no file of weights")
    with pytest.raises(DataError, match="holds no weights: .*safetensors or PyTorch's format"):
        read_weights(tmp_path / "text")
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path)


def header(**fields):
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        header(x={"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}),
        header(x={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}) + b"1234",
        header(x={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}) + b"1234",
        header(x={"dtype": "exec", "shape": [1], "data_offsets": [0, 4]}) + b"1234",
    ],
)
def test_harmful_safetensors(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(DataError, match="cut short or damaged"):
        read_weights(tmp_path / "w")
