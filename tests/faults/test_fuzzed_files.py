"""Ten thousand damaged files of weights and CIFAR pickles: each gives a valid result or one clear error."""

import io
import pickletools
import random
import resource
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save
from test_sources import LAYOUT, batch, files, py2_pickle, py3_pickle
from test_weights import dump, nested, rebuild, write_legacy

from ncl_jax.data.sources import cifar_archive, cifar_pickle
from ncl_jax.errors import DataError
from ncl_jax.weights.read import read_weights

EACH = 2500  # files of a kind
MORE = 100_000  # KiB that reading them all may take
TENSORS = {
    "conv1.weight": np.ones((2, 1, 3, 3), np.float32),
    "bn1.bias": np.ones(2, np.float16),
    "bn1.num_batches_tracked": np.array(7),
}
NUMBERS = [struct.pack("<i", n) for n in (0, 1, -1, 255, 2**16, 2**31 - 1, -(2**31))]
POOL = [  # opcodes that files have, those that they must not have, and what could be made of them
    b"(", b".", b"0", b"1", b"2", b"N", b"K\x00", b"K\xff", b"M\xff\xff", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"R", b"b", b"Q",
    b"t", b")", b"\x85", b"\x86", b"\x87", b"]", b"}", b"a", b"e", b"s", b"u", b"l", b"d", b"o", b"q\x00", b"h\x00",
    b"r\xff\xff\xff\x1f", b"j\x01\x00\x00\x00", b"\x81", b"\x92", b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94", b"\x95" + bytes(8),
    b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"cnumpy\ndtype\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"c_codecs\nencode\n", b"ios\nsystem\n", b"I1\n", b"L1L\n", b"Vx\n", b"S'x'\n",
    b"Pid\n", b"X\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x96" + b"\xff" * 8, b"\x82\x01",
    b"X\x06\x00\x00\x00latin1", b"U\x02u1", *(b"J" + number for number in NUMBERS),
]  # fmt: skip


def peak():
    """The most memory that the process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def damaged(content, rng):
    """Some bytes changed, left out, doubled, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        start = rng.randrange(len(changed))
        kind = rng.randrange(6)
        if kind == 0:
            changed[start] = rng.randrange(256)
        elif kind == 1:
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[start : start + rng.choice((1, 2, 8, 100))]
        elif kind == 3:
            changed[start:start] = changed[start : start + rng.choice((1, 8, 100))]
        elif kind == 4:
            changed[start : start + 4] = rng.choice(NUMBERS)
        elif rng.random() < 0.1:
            del changed[start:]
        changed = changed or bytearray(b"\x80")
    return bytes(changed)


def opcodes(content):
    """A pickle, cut before each opcode."""
    starts = [position for _, _, position in pickletools.genops(content)]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def rewritten(codes, rng):
    """A pickle whose opcodes were replaced, left out, doubled, swapped or joined by others."""
    codes = list(codes)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(1, len(codes)), rng.randrange(1, len(codes))
        kind = rng.randrange(5)
        if kind == 0:
            codes[at] = rng.choice(POOL)
        elif kind == 1:
            codes.insert(at, rng.choice(POOL))
        elif kind == 2:
            codes.insert(at, codes[other])
        elif kind == 3:
            codes[at], codes[other] = codes[other], codes[at]
        elif len(codes) > 2:
            del codes[at]
    return b"".join(codes)


def zip_of(pickled):
    """A zip file of these parts, made faster than by `ZipFile`'s own checks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, value in enumerate(TENSORS.values()):
            archive.writestr(f"archive/data/{i}", value.tobytes())
    return buffer.getvalue()


def kinds(tmp_path):
    """By kind: a good file's content, its opcodes, and the file that has other opcodes."""
    values = nested({name: rebuild(str(i), value) for i, (name, value) in enumerate(TENSORS.items())})
    pickled = dump(values)
    write_legacy(tmp_path / "legacy", nested, tensors=TENSORS)
    legacy = (tmp_path / "legacy").read_bytes()
    inside = dump(nested({name: rebuild(str(i), value, True) for i, (name, value) in enumerate(TENSORS.items())}))
    before, after = legacy.split(inside)
    return {
        "zip": (zip_of(pickled), opcodes(pickled), zip_of),
        "legacy": (legacy, opcodes(inside), lambda changed: before + changed + after),
        "safetensors": (save(TENSORS), None, None),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_of_weights(tmp_path, kind):
    rng, path = random.Random(kind), tmp_path / "w"
    content, codes, made_of = kinds(tmp_path)[kind]
    outcomes, before = {"read": 0, "refused": 0}, peak()
    for _ in range(EACH):
        changed = damaged(content, rng) if codes is None or rng.random() < 0.4 else made_of(rewritten(codes, rng))
        path.unlink(missing_ok=True)  # to write over a file waits for the disk
        path.write_bytes(changed)
        try:
            found = read_weights(path)
        except DataError as error:
            assert_good(error, changed)
            outcomes["refused"] += 1
        else:
            assert sum(value.nbytes for value in found.values()) <= 4 * len(changed)
            outcomes["read"] += 1
    assert min(outcomes.values()) > EACH // 50, outcomes
    assert peak() < before + MORE


def test_damaged_pickles_of_cifar():
    rng = random.Random("cifar")
    good = {name: cifar_pickle.load(content, name) for name, content in files().items()}
    sources = [dump_of(batch(0, 1)) for dump_of in (py2_pickle, py3_pickle)]
    codes = [opcodes(source) for source in sources]
    outcomes, before = {"read": 0, "refused": 0}, peak()
    for _ in range(EACH):
        which = rng.randrange(2)
        changed = damaged(sources[which], rng) if rng.random() < 0.4 else rewritten(codes[which], rng)
        try:
            value = cifar_pickle.load(changed, "data_batch_1")
            images, labels = cifar_archive._split(LAYOUT, [value, good["data_batch_2"]], "here")
        except DataError as error:
            assert_good(error, changed)
            outcomes["refused"] += 1
        else:
            assert images.nbytes + labels.nbytes <= 2 * len(changed) + 20_000
            outcomes["read"] += 1
    assert min(outcomes.values()) > EACH // 50, outcomes
    assert peak() < before + MORE


def assert_good(error, changed):
    assert "\n" not in str(error) and len(str(error)) < 1000, changed
    assert not isinstance(error.__cause__, MemoryError | RecursionError), changed
