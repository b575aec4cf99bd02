"""The automatic split: it follows from the names of the images, and stays when images are added."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from ncl_jax.config import recipes
from ncl_jax.data import holdout, sources
from ncl_jax.data.sources import groups
from ncl_jax.data.types import Request

SHARE = 0.2


def plain(names, share):
    """The rule as a loop: by number, those below the share, from half to twice of it, one at least, not all."""
    value = lambda name: int(hashlib.blake2b(f"test\0{name}".encode(), digest_size=8).hexdigest(), 16) / 2**64  # noqa: E731
    order = sorted(names, key=value)
    count = sum(value(name) < share for name in names)
    least, most = max(1, round(share * len(names) / 2)), max(1, round(2 * share * len(names)))
    return set(order[: min(max(count, least), most, len(names) - 1)])


def held(names, labels=None, share=SHARE, **more):
    labels = np.zeros(len(names), np.int32) if labels is None else labels
    mask = holdout.held_out(labels, names, share, "test", **more)
    return {name for name, chosen in zip(names, mask, strict=True) if chosen}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20, 300])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_rule_is_that_of_a_loop(count, share):
    names = [f"cat/{i}.jpg" for i in range(count)]
    found = held(names, share=share)
    assert found == plain(names, share)
    assert bool(found) == (count > 1) and len(found) < count
    assert held(names[::-1], share=share) == found  # no order


def test_classes_do_not_depend_on_each_other():
    names = [f"cat/{i}.jpg" for i in range(30)] + [f"dog/{i}.jpg" for i in range(30)]
    both = held(names, np.repeat([0, 1], 30).astype(np.int32))
    assert both == held(names[:30]) | held(names[30:])


def test_val_and_test_are_chosen_independently():
    names = [f"{i}.jpg" for i in range(2000)]
    test = holdout.held_out(np.zeros(2000, np.int32), names, SHARE, "test")
    val = holdout.held_out(np.zeros(2000, np.int32), names, SHARE, "val")
    assert 0.12 < val[test].mean() < 0.28


def test_an_added_image_moves_at_most_one_and_within_the_bounds_none():
    rng, moves, trials = np.random.default_rng(0), 0, 0
    for trial in range(40):
        names = [f"{trial}/{i}" for i in rng.permutation(60)]
        before: set = set()
        for count in range(1, 61):
            now = held(names[:count])
            moved = len((now ^ before) - {names[count - 1]})
            share_of_numbers = (holdout.numbers(names[:count], "test") < SHARE).sum()
            assert moved <= 1
            if len(before) and len(now) == share_of_numbers and len(before) in (len(now), len(now) - 1):
                free = len(before) == (holdout.numbers(names[: count - 1], "test") < SHARE).sum()
                assert not (free and moved)
            moves, trials, before = moves + moved, trials + (count > 20), now
    assert moves < 0.1 * 40 * 60  # by rule 1 every image's place changes at random


def test_a_thousand_images_that_are_added_move_next_to_none():
    old = [f"a/{i}" for i in range(100)]
    moved = (held(old) ^ held(old + [f"b/{i}" for i in range(1000)])) & set(old)
    assert len(moved) == 0


def test_the_recipe_does_not_depend_on_which_images_are_held_out(tmp_path):
    """160 of 200 images are trained on by the share, just enough for batches of 16."""
    numbers = set()
    for name in "uvwxyz":
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(100):
                (tmp_path / name / label / f"{name}{i}.jpg").write_bytes(b"x")
        config = recipes.folder(f"dir={tmp_path / name},image_size=16")
        numbers.add(len(sources.load(Request("folder", tmp_path / name)).splits["train"]))
        assert config.optim.batch_size == 16
    assert min(numbers) < 160 < max(numbers)


def test_forms_of_unicode_are_one_name():
    assert held([f"é/{i}" for i in range(9)]) == {
        n.replace("e\u0301", "é") for n in held([f"e\u0301/{i}" for i in range(9)])
    }


def test_names_that_are_not_utf8():
    assert len(held([f"caf\udce9/{i}" for i in range(9)])) >= 1


def test_images_of_a_run_stay_where_they_were():
    names = [f"{i}.jpg" for i in range(40)]
    wrong = {name: "train" if name in held(names) else "test" for name in names[:20]}
    found = held(names, pinned=wrong)
    assert {name for name in names[:20] if name in found} == {name for name in names[:20] if wrong[name] == "test"}
    assert {name for name in names[20:] if name in found} == held(names) - set(names[:20])
    group = np.array([f"{i // 4}" for i in range(40)], object)
    found = held(names, groups=group, pinned={"0.jpg": "test", "4.jpg": "train"})
    assert set(names[:4]) <= found and not set(names[4:8]) & found


def test_rule_1_is_what_it_was():
    """The rows that runs from before rule 2 were tested on."""
    labels = np.repeat(np.arange(3), (20, 5, 1)).astype(np.int32)
    assert np.flatnonzero(holdout.held_out(labels, range(26), 0.2, "test", rule=1)).tolist() == [1, 8, 18, 19, 24]


def test_groups_are_numbered_as_by_numpy_without_an_array_of_the_longest():
    texts = np.random.default_rng(0).choice(["b", "a", "é", "a" * 50, "B"], 500).astype(object)
    unique, places = holdout.numbered(texts)
    wanted = np.unique(texts.astype(str), return_inverse=True)
    assert unique == wanted[0].tolist() and places.tolist() == wanted[1].tolist()
    texts[7] = "x" * 100_000  # by which NumPy's array would have 200 MB
    tracemalloc.start()
    holdout.held_out(np.arange(500) % 3, map(str, range(500)), 0.2, "test", groups=texts)
    groups.folds(texts, np.arange(500) % 3, 3, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
