"""What a report says and shows, from answers that are known: choices of images, figures by class, sentences, files."""

import csv
import io
import re
import types

import numpy as np
import pytest
from PIL import Image

from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.images import thumbnails
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.evaluation import metrics, predictions, predictions_file, shown
from ncl_jax.evaluation.predictions import Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.report import classes, spreadsheet, tables, verdict
from ncl_jax.report.content import Names, RunContent
from ncl_jax.runs import neighbours

PICTURES = True
LABELS, TOP = np.array([0, 0, 1, 1, 2, 2, 3, 3], np.int32), np.array([0, 1, 1, 1, 0, 0, 2, 3], np.int32)
CONFIDENCE = np.array([0.9, 0.6, 0.8, 0.7, 0.95, 0.85, 0.5, 0.4], np.float32)
COUNTS = (200, 50, 10, 5)
NAMES = ("=cmd()", "b", "c;<d>", "e\u202ef")


def random_answers(seed=0, number=200, classes=7):
    """Labels and answers of three predictors, half of them right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, number).astype(np.int32)
    top = np.where(rng.random((3, number)) < 0.5, labels, rng.integers(0, classes, (3, number))).astype(np.int32)
    return Predictions(labels, top, rng.random(top.shape).astype(np.float32))


def content(found, counts=COUNTS, names=NAMES, **results):
    """A run's content with these answers."""
    facts = Facts("data", (8, 8, 3), tuple(names), tuple(counts), "0")
    results = {"ensemble": {"accuracy": 0.5}, "test_counts": np.bincount(found.labels).tolist()} | results
    return RunContent("run", results, facts, [], found, Names([f"{row}.png" for row in range(len(found.labels))]))


def test_the_worst_mistakes_are_the_most_confident_and_of_every_kind():
    assert shown.worst(LABELS, TOP, CONFIDENCE) == [4, 5, 1, 6]
    same, alike = np.zeros(9, int), np.array([1] * 5 + [2] * 4)
    assert shown.worst(same, alike, np.arange(9) / 9) == [8, 7, 4, 3]


def test_confused_pairs_by_number_and_by_share():
    found = random_answers()
    pairs = shown.pairs(found.labels, found.top[0], 7)
    loop = {}
    for true, taken in zip(found.labels.tolist(), found.top[0].tolist(), strict=True):
        if true != taken:
            loop[true, taken] = loop.get((true, taken), 0) + 1
    assert {pair[:2]: pair.images for pair in pairs} == loop
    assert all(pair.of == (found.labels == pair.true).sum() for pair in pairs)
    assert [p.images for p in shown.by_count(pairs)] == sorted(loop.values(), reverse=True)[: shown.PAIRS]
    rare, common, single = Pair(0, 1, 4, 5), Pair(1, 0, 40, 100), Pair(2, 0, 1, 1)
    assert shown.by_share([single, common, rare]) == [rare, common] and shown.by_share([single]) == [single]
    assert shown.by_count([single, common, rare])[0] == common
    assert shown.shown_pairs([]) == []


def test_rows_by_class_keep_their_order():
    labels, rows = np.array([2, 0, 2, 1, 0]), np.array([4, 2, 1, 0])
    assert [part.tolist() for part in shown.by_class(labels, rows, 4)] == [[4, 1], [], [2, 0], []]


def test_the_hardest_classes_are_those_that_surely_fail():
    labels, top = np.repeat([0, 1, 2], [1, 30, 5]), np.repeat([1, 0, 2], [1, 30, 5])
    assert shown.hardest(labels, top, 4).tolist() == [1, 0, 2, 3]  # 0 of 30, 0 of 1, 5 of 5, untested


def test_the_order_of_pictures_has_the_worst_first_and_something_of_every_class():
    found = random_answers(classes=7)
    train = np.repeat(np.arange(7), [30, 20, 10, 5, 3, 2, 1])
    near = {int(row): np.array([69, 70]) for row in np.flatnonzero(found.top[0] != found.labels)}
    places = shown.order(found.labels, found.top[0], found.confidence[0], train, near, 7)
    worst = shown.worst(found.labels, found.top[0], found.confidence[0])
    assert places[:4] == [(False, worst[0]), (True, 69), (True, 70), (False, worst[1])]
    assert len(set(places)) == len(places) <= shown.MOST
    assert {int(train[row]) for trained, row in places if trained} == set(range(7))
    assert all(found.labels[row] != found.top[0, row] for trained, row in places if not trained)
    assert places == shown.order(found.labels, found.top[0], found.confidence[0], train, near, 7)


def test_a_sample_keeps_small_classes_whole():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [1000, 300, 20, 1]))
    rows = predictions.sample(labels, 221)
    assert np.bincount(labels[rows]).tolist() == [100, 100, 20, 1] and (np.diff(rows) > 0).all()
    assert predictions.sample(labels, 5000).tolist() == list(range(1321))
    assert (predictions.sample(labels, 221) == rows).all()


def test_a_thumbnail_is_of_the_file_in_its_own_aspect_and_upright(tmp_path):
    pixels = np.zeros((400, 1000, 3), np.uint8)
    pixels[:, :500] = 255  # the left half is white; turned by the orientation it is the upper one
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    files = Files(tmp_path, np.array(["a.jpg", "gone.jpg"]), np.zeros(2, int))
    with Image.open(io.BytesIO(thumbnails.jpeg(files, 0, 128))) as made:
        assert made.format == "JPEG" and made.size == (51, 128)
        assert np.asarray(made)[5].mean() > 250 and np.asarray(made)[-5].mean() < 5
    with pytest.raises(DataError, match=r"gone\.jpg"):
        thumbnails.jpeg(files, 1, 128)
    with Image.open(io.BytesIO(thumbnails.jpeg(np.zeros((1, 9, 7, 3), np.uint8), 0, 128))) as made:
        assert made.size == (7, 9)


def vectors(plan, variables, split, name):
    """Stands in for `embed`: images are vectors already."""
    if variables == "broken":
        raise DataError("a.jpg has gone")
    return split.images


def test_the_nearest_training_images_are_those_of_a_loop(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    train = Split(rng.normal(size=(50, 4)), rng.integers(0, 3, 50).astype(np.int32))
    test = Split(rng.normal(size=(9, 4)), np.zeros(9, np.int32))
    data = Data(Facts("d", (8, 8, 3), ("a", "b", "c"), (20, 20, 10), "0"), train, test, {})
    monkeypatch.setattr(neighbours, "embed", vectors)
    plan = types.SimpleNamespace(trunk=None)
    found = neighbours.finder(plan, "good", data)(np.array([7, 2]))
    for place, row in enumerate((7, 2)):
        cosines = [v @ test.images[row] / np.linalg.norm(v) / np.linalg.norm(test.images[row]) for v in train.images]
        nearest = np.argsort(cosines)[::-1][:3]
        assert found.mistakes[place] == row and found.near[place].tolist() == nearest.tolist()
        assert found.near_labels[place].tolist() == train.labels[nearest].tolist()
        np.testing.assert_allclose(found.distances[place], 1 - np.sort(cosines)[::-1][:3], atol=1e-5)
    assert neighbours.finder(plan, "broken", data)(np.array([7])) is None
    assert "a.jpg has gone" in capsys.readouterr().out
    features = data._replace(
        train=Split(train.images[:, None], train.labels), test=Split(test.images[:, None], test.labels)
    )
    again = neighbours.finder(plan, None, data, features)(np.array([7, 2]))
    assert (again.near == found.near).all()


def test_pictures_stop_where_their_room_ends(monkeypatch):
    found = random_answers(number=300)
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    answers = metrics.Answers(found.labels, found.labels >= 0, found.top, found.confidence, *found.confidence[:2])
    split = Split(images, found.labels)
    whole = predictions.make(answers, split, split, 7).pictures
    monkeypatch.setattr(predictions, "MOST_BYTES", 20_000)
    part = predictions.make(answers, split, split, 7).pictures
    assert 0 < len(part.jpegs) <= 20_000 < len(whole.jpegs) and 0 < len(part.tested) < len(whole.tested)
    assert part.jpeg(0) == whole.jpeg(0) and len(part.ends) == len(part.tested) + len(part.trained)


def test_everything_that_is_known_comes_back_from_the_file(tmp_path):
    found, rng = random_answers(), np.random.default_rng(0)
    sets, known = rng.random((200, 7)) < 0.3, rng.random(200).astype(np.float32)
    (tmp_path / "p.npz").write_bytes(predictions_file.packed(found._replace(sets=sets, known=known)))
    again = predictions_file.read(tmp_path / "p.npz", 7, 3)
    assert (again.sets == sets).all() and again.sets.dtype == bool and (again.known == known).all()
    assert (again.top == found.top).all() and again.pictures is None


def test_the_figures_of_every_class_are_those_of_a_loop():
    found = random_answers()
    of = classes.figures(found, [5] * 8)  # one class is neither tested nor named
    for c in range(8):
        right = sum(t == p == c for t, p in zip(found.labels, found.top[0], strict=True))
        tested, named = (found.labels == c).sum(), (found.top[0] == c).sum()
        assert (of.right[c], of.tested[c], of.named[c]) == (right, tested, named)
        if c < 7:
            recall, precision = right / tested, right / named
            np.testing.assert_allclose([of.recall[c], of.precision[c]], [recall, precision])
            np.testing.assert_allclose(of.f1[c], 2 * recall * precision / (recall + precision))
            assert of.low[c] < recall < of.high[c]
        else:
            assert np.isnan([of.recall[c], of.precision[c], of.f1[c]]).all() and of.low[c] == 0 and of.high[c] == 1


def said(labels, top, counts, **results):
    """The verdict as text, without its marks."""
    found = Predictions(labels, top[None], np.full((1, len(labels)), 0.5, np.float32))
    names = [f"class{c}" for c in range(len(counts))]
    run = content(found, counts, names, **results)
    html = verdict.section(run, found, classes.figures(found, counts), "worst", lambda what: "")
    return re.sub("<[^>]+>", "", html)


def test_the_verdict_names_what_fails_and_what_to_do():
    labels = np.repeat([0, 1, 2], 50).astype(np.int32)
    text = said(labels, np.where(labels == 2, 1, labels), (300, 200, 6))
    assert text.startswith("66.7 % of the 150 test images") and "58.8 and 73.7 %" in text
    assert "1 class surely fails" in text and "Collect images of class2" in text
    assert "class2 → class1: 50 of 50" in text and "comes first" not in text
    good = said(labels, labels, (300, 200, 6))
    assert "100.0 %" in good and "No class surely fails" in good and "Collect" not in good


SMALL = {  # images of a class, right ones; whether it surely fails, whether images are to be collected
    "one": (1, 0, False, False), "five": (5, 0, False, False), "six": (6, 0, True, False), "ten": (10, 0, True, True),
    "ten with nine": (10, 9, False, False), "twenty with six": (20, 6, False, True),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_sure_of_a_few_test_images(name):
    number, right, fails, collect = SMALL[name]
    labels = np.repeat([0, 1], [100, number]).astype(np.int32)
    top = np.where((labels == 1) & (np.arange(len(labels)) >= 100 + right), 0, labels).astype(np.int32)
    text = said(labels, top, (300, 20))
    assert ("1 class surely fails:" in text) == fails and ("Collect images of" in text) == collect
    little = "figures say little" in text
    assert little == (number < 10 and not fails) and not (little and collect)


def test_what_is_known_of_the_data_stands_near_the_verdict():
    labels = np.repeat([0, 1], 20).astype(np.int32)
    notes = ["warning: groups <b> that are both in train and in test: 2", "semicolons"]
    text = said(labels, labels, (300, 20), data_notes=notes, test_groups=3)
    assert "groups &lt;b&gt; that are both in train and in test: 2" in text and "semicolons" not in text
    assert "3 cameras, sites or the like" in text and "too narrow" in text
    plain = said(labels, labels, (300, 20))
    assert "too narrow" not in plain and "doubtful" not in plain


def test_the_mean_over_classes_leads_where_the_test_set_is_not_balanced():
    labels = np.repeat([0, 1, 2, 3], [90, 10, 8, 2]).astype(np.int32)
    text = said(labels, np.zeros_like(labels), (900, 100, 80, 20))
    assert text.startswith("25.0 % of the images of a class") and text.index("81.8 %") > text.index("25.0 %")
    assert "is right for 81.8 % of the images and 25.0 % as a mean" in text
    assert "1 class has fewer than 10 test images" in text and "2 classes surely fail" in text


def test_the_end_says_where_the_training_prior_would_change_the_ranking():
    results = {
        "ensemble": {"accuracy": 0.2}, "class_means": {"ensemble": {"accuracy": 0.4}, "experts": []},
        "test_counts": [90, 10], "class_counts": [900, 100], "moved": {"accuracy": 0.6, "class_mean": 0.3},
    }  # fmt: skip
    assert "--prior=train" in (text := tables.other_prior(results)) and "60.0 %" in text and "30.0 %" in text
    assert "90.0 %" in tables.blind(results)
    worse = results | {"ensemble": {"accuracy": 0.8}}  # the prior makes it worse
    assert not tables.other_prior(worse)
    lacking = results | {"test_counts": [90, 10, 0], "class_counts": [900, 100, 5]}
    assert tables.blind(lacking).count("50.0 %") == 2  # chance among the classes that are tested, both times
    near = results | {"moved": {"accuracy": 0.21, "class_mean": 0.39}}
    balanced = results | {"test_counts": [50, 50]}
    assert not tables.other_prior(near) and not tables.other_prior(balanced) and not tables.blind(balanced)


def test_decimals_follow_from_the_number_of_images():
    assert [tables.digits_for(number) for number in (35, 100, 2000, 10_000)] == [0, 1, 1, 2]


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_file_of_the_classes():
    found = Predictions(LABELS, TOP[None], CONFIDENCE[None])
    run = content(found)
    written = rows(spreadsheet.classes(run, found, classes.figures(found, COUNTS)))
    assert [row["class"] for row in written] == ["'=cmd()", *NAMES[1:]]
    third = written[2]
    assert (third["right"], third["test_images"], third["recall"], third["precision"]) == ("0", "2", "0.0000", "0.0000")
    assert (third["most_taken_for"], third["times"], third["group"]) == ("'=cmd()", "2", "few")
    assert written[1]["most_taken_for"] == "" and written[0]["f1"] == "0.4000"


def test_the_file_of_the_images():
    found = Predictions(
        LABELS, np.stack([TOP, TOP, LABELS]), np.stack([CONFIDENCE] * 3), CONFIDENCE / 2, CONFIDENCE / 4
    )
    run = content(found)
    plain = rows(spreadsheet.images(run, found))
    assert list(plain[0])[-2:] == ["expert_0", "expert_1"] and "known" not in plain[0]
    fifth = plain[4]
    assert (fifth["file"], fifth["truth"], fifth["answer"], fifth["right"]) == ("4.png", "c;<d>", "'=cmd()", "0")
    assert (fifth["probability"], fifth["probability_of_truth"], fifth["margin"]) == ("0.9500", "0.4750", "0.2375")
    assert (fifth["expert_0"], fifth["expert_1"]) == ("'=cmd()", "c;<d>")
    more = found._replace(known=CONFIDENCE, sets=np.eye(4, dtype=bool)[LABELS] | np.eye(4, dtype=bool)[TOP])
    fifth = rows(spreadsheet.images(run, more))[4]
    assert (fifth["known"], fifth["set_size"], fifth["set"]) == ("0.9500", "2", "'=cmd(); c;<d>")


def test_no_class_is_below_the_whole_because_all_are_bad():
    """Five classes of 100 images, 28 to 36 right: surely fewer than half, but none surely below the 31 % of all."""
    right = np.array([28, 30, 31, 31, 36])
    labels = np.repeat(np.arange(5, dtype=np.int32), 100)
    top = np.concatenate([np.where(np.arange(100) < r, c, (c + 1) % 5) for c, r in enumerate(right)]).astype(np.int32)
    found = Predictions(labels, top[None], np.full((1, 500), 0.3, np.float32))
    assert not verdict._images(classes.figures(found, (200, 150, 50, 20, 10)), str)
    one = found._replace(top=np.where(labels == 2, 0, top)[None].astype(np.int32))  # but for one that is never right
    (said,) = verdict._images(classes.figures(one, (200, 150, 50, 20, 10)), str)
    assert "[2]" in said
