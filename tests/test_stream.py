"""Streamed batches: the same whatever decodes them, wherever they are begun; and errors while decoding."""

import functools
import threading

import jax
import numpy as np
import pytest
from test_own_images import write_image

from ncl_jax.data.augment import views
from ncl_jax.data.feeds import resident, stream
from ncl_jax.data.images import parallel, transforms
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.runtime.devices import make_mesh

SIZE, NUM_IMAGES, BATCH = 16, 21, 4  # five batches an epoch


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """JPEGs of different sizes."""
    root = tmp_path_factory.mktemp("images")
    names = np.array([f"{i}.jpg" for i in range(NUM_IMAGES)], object)
    for i, name in enumerate(names):
        write_image(root / name, seed=i, size=(18 + i, 40 - i))
    sizes = np.array([(root / name).stat().st_size for name in names])
    return Split(Files(root, names, sizes), np.arange(NUM_IMAGES, dtype=np.int32) % 3)


PARTS = [views.host_part("imagenet", SIZE), views.host_part("imagenet", SIZE), None]


def batches(split, batch_size=BATCH, local=None, order=None, seed=3):
    order = order or stream.Shuffled(seed, len(split), batch_size)
    local = np.arange(batch_size) if local is None else local
    return stream.Batches(split, order, stream.Cut(PARTS, 20, SIZE), seed, batch_size, local)


def feed(split, devices=1, threads=2, workers=0, order=None):
    make = functools.partial(_of, split, order)
    return stream.Stream(make, BATCH, make_mesh(devices), threads=threads, workers=workers)


def _of(split, order, local):
    return batches(split, local=local, order=order)


def take(source, first, count):
    """Batches of a feed from a step on, as numpy arrays."""
    found = []
    for batch, served in source.batches(first):
        assert served == 1
        found.append(jax.device_get(batch))
        if len(found) == count:
            break
    source.close()
    return found


@pytest.fixture(scope="module")
def expected(split):
    """Twelve batches, one after the other in this thread."""
    whole = batches(split)
    return [whole[step] for step in range(12)]


def assert_same(ours, theirs):
    for batch, other in zip(ours, theirs, strict=True):
        for name in ("images", "labels", "valid"):
            np.testing.assert_array_equal(getattr(batch, name), other[name])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("first", [0, 7])
def test_batches_are_the_same_for_any_threads_devices_and_start(split, expected, threads, devices, first):
    found = take(feed(split, devices, threads), first, 12 - first)
    assert_same(found, expected[first:])
    assert found[0].images.shape == (BATCH, 3, SIZE, SIZE, 3)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_workers(split, expected, workers):
    assert_same(take(feed(split, 1, 2, workers), 5, 4), expected[5:9])


def test_every_process_decodes_its_own_rows(split, expected):
    for rows in (np.array([0, 1]), np.array([2, 3]), np.array([1])):
        part = batches(split, local=rows)[6]
        for name in ("images", "labels", "valid"):
            np.testing.assert_array_equal(part[name], expected[6][name][rows])


def test_the_parts_are_those_of_the_image_and_the_test_transform(split, expected):
    order = stream.Shuffled(3, NUM_IMAGES, BATCH)
    for step in (0, 9):
        for place, row in enumerate(order.rows(step)):
            image = parallel.decoded(split.images, row)
            copies = expected[step]["images"][place]
            np.testing.assert_array_equal(copies[2], transforms.fit(image, 20, SIZE))
            assert (copies[0] != copies[1]).any()  # each copy has its own crop
            assert expected[step]["labels"][place] == row % 3


def test_one_decode_serves_all_views(split, monkeypatch):
    rows = []
    plain = stream.needed
    monkeypatch.setattr(stream, "needed", lambda images, row: (rows.append(row), plain(images, row))[1])
    batches(split)[0]
    assert sorted(rows) == sorted(stream.Shuffled(3, NUM_IMAGES, BATCH).rows(0))


def test_every_epoch_visits_each_image_once_in_its_own_order():
    order = stream.Shuffled(0, NUM_IMAGES, BATCH)
    epochs = [np.concatenate([order.rows(5 * epoch + step) for step in range(5)]) for epoch in range(3)]
    for rows in epochs:
        assert len(set(rows)) == 20 and set(rows) <= set(range(NUM_IMAGES))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
    other = stream.Shuffled(1, NUM_IMAGES, BATCH)
    assert (other.rows(0) != order.rows(0)).any()


def test_a_test_set_is_read_in_order_and_filled_up(split):
    found = take(feed(split, 2, order=stream.InOrder(NUM_IMAGES, BATCH)), 0, 7)
    labels, valid = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("labels", "valid"))
    assert len(found) == 6 and valid.tolist() == [True] * NUM_IMAGES + [False] * 3
    np.testing.assert_array_equal(labels[valid], split.labels)
    assert not found[-1].images[1:].any()


def test_reading_goes_on_where_it_was_left(split, expected):
    source = feed(split)
    first = [jax.device_get(batch) for batch, _ in zip_first(source.batches(2), 2)]
    iterator = source._iterator
    second = take(source, 4, 3)
    assert iterator is not None and source._iterator is None
    assert_same(first + second, expected[2:7])
    assert source.waited > 0


def zip_first(iterator, count):
    for _ in range(count):
        yield next(iterator)


def test_the_test_transform_streamed_equals_it_stored(split):
    cut = stream.Cut([None], 20, SIZE)
    whole = stream.Batches(split, stream.InOrder(NUM_IMAGES, NUM_IMAGES), cut, 0, NUM_IMAGES, np.arange(NUM_IMAGES))
    stored = resident.stored(split, feed="resident", size=SIZE, resize=20, resizes=False, text="")
    np.testing.assert_array_equal(whole[0]["images"][:, 0], stored)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_file_that_breaks_while_it_is_read_is_named(split, tmp_path, content):
    names, sizes = split.images.names, split.images.sizes
    for name in names:
        (tmp_path / name).write_bytes((split.images.root / name).read_bytes())
    (tmp_path / "13.jpg").write_bytes(content)
    source = feed(Split(Files(tmp_path, names, sizes), split.labels))
    with pytest.raises(DataError, match=r"13\.jpg cannot be read as an image .*ncl-jax inspect"):
        take(source, 0, 5)
    (tmp_path / "13.jpg").unlink()
    with pytest.raises(DataError, match=r"13\.jpg cannot be read \(No such file"):
        take(source, 0, 5)
    source.close()
    for thread in threading.enumerate():
        if "grain" in thread.name:
            thread.join(timeout=30)  # they end after the image that they are at
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("kind", "wanted", "resizes", "shape"),
    [
        ("files", "auto", False, (NUM_IMAGES, SIZE, SIZE, 3)),  # decoded once
        ("files", "resident", False, (NUM_IMAGES, SIZE, SIZE, 3)),
        ("files", "stream", False, None),
        ("files", "auto", True, None),  # the views need them whole, and they differ
        ("files", "resident", True, (NUM_IMAGES, 20, 20, 3)),
        ("large", "auto", False, None),
        ("large", "resident", False, (NUM_IMAGES, SIZE, SIZE, 3)),
        ("array", "auto", False, (6, SIZE, SIZE, 3)),
        ("array", "stream", False, None),
        ("other", "auto", False, (6, SIZE, SIZE, 3)),
        ("other", "auto", True, (6, 24, 24, 3)),
    ],
)
def test_what_is_stored(split, monkeypatch, kind, wanted, resizes, shape):
    if kind == "large":
        monkeypatch.setattr(resident, "LARGEST_RESIDENT", 1000)
    side = {"array": SIZE, "other": 24}.get(kind)
    given = Split(np.zeros((6, side, side, 3), np.uint8), np.zeros(6, np.int32)) if side else split
    images = resident.stored(given, feed=wanted, size=SIZE, resize=20, resizes=resizes, text="")
    assert (images if images is None else images.shape) == shape


def test_images_of_one_size_are_stored_whole(tmp_path):
    names = np.array(["a.png", "b.png"], object)
    for i, name in enumerate(names):
        write_image(tmp_path / name, seed=i, size=(30, 20))
    given = Split(Files(tmp_path, names, np.ones(2)), np.zeros(2, np.int32))
    images = resident.stored(given, feed="auto", size=SIZE, resize=20, resizes=True, text="")
    assert images.shape == (2, 30, 20, 3)
    np.testing.assert_array_equal(images[1], parallel.decoded(given.images, 1))
