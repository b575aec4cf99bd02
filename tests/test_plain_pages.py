"""What a page says follows from the figures: what is the same is shown once, lists are sorted by what they show."""

import re

import numpy as np
import pytest
from test_page import Text, content
from test_report_parts import content as with_answers
from test_report_parts import said

from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import shown
from ncl_jax.evaluation.predictions import Near, Predictions
from ncl_jax.evaluation.shown import Pair
from ncl_jax.models import FROZEN
from ncl_jax.report import (
    charts,
    comparable,
    comparison,
    confusion,
    galleries,
    glossary,
    html,
    page,
    pairs,
    plots,
    promises,
    tables,
    verdict,
)  # fmt: skip
from ncl_jax.report.album import Album
from ncl_jax.report.content import Names
from ncl_jax.report.galleries import Shown

PICTURES = True


def words(text):
    return re.sub("<[^>]+>", "", text)


def agreeing(run, kl, top1):
    """A run whose experts differ by so much."""
    of = run.results["disagreement"]["kl"]
    return run._replace(results=run.results | {"disagreement": {"kl": of | {"all": kl}, "top1": of | {"all": top1}}})


@pytest.mark.parametrize("kl, top1, same", [(3e-7, 0.0, True), (0.002, 0.0, False), (3e-7, 0.001, False)])
def test_experts_that_give_the_same_answers_are_shown_once(kl, top1, same):
    run = agreeing(content(classes=4), kl, top1)
    assert tables.coincide(run.results) == same
    names = [name for name, _ in tables.columns(run.results)]
    assert names == ["ensemble"] if same else len(names) == 6
    assert ("give the same answers" in tables.table(run.results)) == same
    charted = [page.confidence(run, run.predictions, "r"), page.disagreement(run, "r"), page.head_and_tail(run, "r")]
    assert [len(re.findall("<svg", part)) for part in charted] == ([1, 0, 1] if same else [4, 2, 1])
    assert ("mean expert" in charted[2]) != same
    frozen = run.results | {"config": {"model": {"freeze": FROZEN}}}
    assert ("frozen features" in tables.table(frozen)) == same


def test_pairs_by_share_are_sorted_by_the_share_that_is_shown():
    found = [Pair(0, 1, 6, 29), Pair(2, 0, 2, 12), Pair(3, 0, 1, 2), Pair(1, 2, 40, 100), Pair(1, 0, 2, 3)]
    listed = shown.by_share(found)
    shares = [pair.images / pair.of for pair in listed]
    assert shares == sorted(shares, reverse=True) and [pair.images for pair in listed] == [2, 40, 6, 2]
    assert shown.surest(found) == found[3] and shown.surest(found[2:3]) is None  # 2 of 3 may be chance


def test_the_lists_of_pairs_say_their_rule_and_fold_single_images_away():
    labels = np.repeat([0, 1, 2], [10, 4, 6]).astype(np.int32)
    top = labels.copy()
    top[:3], top[10], top[14:16] = 1, 2, 0
    found = Predictions(labels, top[None], np.full((1, 20), 0.5, np.float32))
    text = pairs.section(with_answers(found, (30, 20, 10), ("a", "b", "c")), found, lambda pair: "")
    assert "pairs of one image left out" in text and "1 pair of one image</summary>" in text
    by_number, by_share = text.split("<h3>")[1:]
    assert by_share.index("c → a") < by_share.index("a → b") and "b → c" not in by_share
    assert by_number.index("a → b") < by_number.index("<details") < by_number.index("b → c")


def test_the_lowest_classes_are_named_by_their_recall_and_only_where_they_stand_out():
    labels = np.repeat([0, 1, 2, 3], [40, 12, 29, 40]).astype(np.int32)
    top = labels.copy()
    top[40:44], top[52:61] = 0, 3  # class1: 8 of 12, 67 %; class2: 20 of 29, 69 %, of a narrower interval
    text = said(labels, top, (400, 300, 200, 200))
    assert "The lowest: class1 (8 of 12, 67 %), class2 (20 of 29, 69 %)." in text
    assert "lowest" not in said(labels, labels, (400, 300, 200, 200)).lower()
    even = labels.copy()
    even[[0, 40, 52, 81]] = 1, 2, 3, 0
    assert "lowest" not in said(labels, np.where(np.arange(121) % 10, labels, 3 - labels), (400, 300, 200, 200)).lower()


def test_classes_that_fail_come_the_lowest_first():
    labels = np.repeat([0, 1, 2], [200, 30, 200]).astype(np.int32)
    top = labels.copy()
    top[:150], top[200:224] = 2, 2
    assert "2 classes surely fail" in (text := said(labels, top, (50, 40, 30)))
    assert text.index("class1 (6 of 30, 20 %)") < text.index("class0 (50 of 200, 25 %)")


@pytest.mark.parametrize(
    "sure, sentence", [(0.6, "less sure than it could be"), (0.98, "too sure of itself"), (0.82, "")]
)
def test_the_sentence_on_probabilities_follows_their_sign(sure, sentence):
    labels = np.zeros(100, np.int32)
    top = (np.arange(100) >= 80).astype(np.int32)
    found = Predictions(labels, top[None], np.full((1, 100), sure, np.float32))
    text = verdict.calibration(found)
    assert sentence in text and bool(text) == bool(sentence)
    assert ("--temperature=val" in verdict._temperature(found)) == bool(sentence)


def test_a_few_test_images_ask_for_more():
    labels = np.repeat([0, 1], 5).astype(np.int32)
    assert "Test on more photographs: 10 are few" in said(labels, labels, (30, 20))
    many = np.repeat([0, 1], 200).astype(np.int32)
    assert "more photographs" not in said(many, many, (300, 200))


def test_mistakes_that_look_like_the_answered_class_are_named_and_marked():
    labels, top = np.zeros(40, np.int32), np.repeat([0, 1], [36, 4]).astype(np.int32)
    near_labels = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0]], np.int32)
    near = Near(np.arange(36, 40, dtype=np.int32), np.zeros((4, 3), np.int32), near_labels, np.zeros((4, 3)))
    found = Predictions(labels, top[None], np.linspace(0.3, 0.9, 40, dtype=np.float32)[None], near=near)
    assert galleries.resembling(found) == {36} and galleries.resembling(found._replace(near=None)) == set()
    run = with_answers(found, (60, 20), ("a", "b"))
    text = galleries.worst(Shown(run, found._replace(top=top[None]), Album(None, "r", 0), "r"))
    assert text.count("class=marked") == 0 and "36.png" not in text  # two of a pair of classes are shown: 39 and 38
    other = found._replace(near=near._replace(near_labels=near_labels[::-1]))
    text = galleries.worst(Shown(run, other, Album(None, "r", 0), "r"))
    assert text.count("class=marked") == 1 and "Marked are those" in text
    assert "Begin with 39.png" in words(verdict._labels(run, other, "w"))
    assert "39.png" not in words(verdict._labels(run, found, "w"))


def test_one_group_of_classes_has_no_columns_of_its_own():
    run = content(classes=3)
    alone = {"many": 0.5, "medium": None, "few": None}
    rows = [row | alone for row in (run.results["ensemble"], *run.results["experts"])]
    results = run.results | {"ensemble": rows[0], "experts": rows[1:]}
    assert "many" in tables.heads(run.results) and "many" not in tables.heads(results)
    assert "many" not in tables.table(results | {"disagreement": None})
    figure = charts.curves([{"kind": "evaluation", "epoch": 1, "ensemble": rows[0]}], ["accuracy"])
    assert [line.get_label() for line in figure.axes[0].lines] == ["all"]


def test_bars_of_class_sizes_begin_at_zero_and_other_axes_say_that_they_are_logarithmic():
    (bars,) = charts.class_sizes("birds", [4, 795, 112], ["a", "b", "c"]).axes
    assert bars.get_yscale() == "linear" and [bar.get_height() for bar in bars.patches] == [795, 112, 4]
    assert bars.get_ylim()[0] == 0 and [label.get_text() for label in bars.get_xticklabels()] == ["b", "c", "a"]
    names = [f"class {c}" for c in range(40)]
    (points,) = charts.class_sizes("birds", range(5, 45), names).axes
    assert points.get_yscale() == "log" and not points.patches and "logarithmic" in points.get_ylabel()


def test_digits_on_dark_cells_have_the_colour_of_the_page():
    labels = np.repeat([0, 1], 10)
    figure = confusion.draw(labels, np.where(np.arange(20) < 2, 1, labels), (9, 5), ("a", "b"), False)
    colors = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colors == {"80": plots.PAGE, "100": plots.PAGE, "20": plots.INK}
    assert "var(--page)" in plots.svg(figure, "m") and plots.PAGE not in plots.svg(figure, "m")


def test_a_long_name_of_a_file_keeps_its_end_and_is_whole_when_it_is_copied():
    name = 'val/shirt/20e5a129-ac26-4ec2-9bf1-<"b">503929.jpg'
    text = html.file_name(name)
    assert words(text) == html.escape(name) and f'title="{html.escape(name)}"' in text
    assert html.file_name("a<.jpg") == "<code>a&lt;.jpg</code>"


def test_every_word_of_the_tables_is_explained_on_the_page():
    run = content(classes=4)
    text = page.page(run)
    explained = " ".join(glossary.WORDS)
    for head in tables.heads(run.results)[1:]:
        assert head.removesuffix(" (nats)") in explained, head
    assert f'href="#{glossary.ANCHOR}"' in text and glossary.ANCHOR in Text(text).names


def moved(run, name, **results):
    return run._replace(name=name, results=run.results | results)


def test_runs_with_other_training_images_are_compared_where_the_test_images_are_the_same():
    run = content(classes=4)
    counts = (run.facts.class_counts[0] - 2, *run.facts.class_counts[1:])
    other = moved(run._replace(facts=run.facts._replace(class_counts=counts)), "corrected", rows_checksum="1")
    comparable.check_same_test_images([run, other])
    text = comparable.different_training([run, other])
    assert "class <0> 500 and 498" in text and "corrected" in text
    assert comparable.different_training([run, run]) == ""
    names = [one.name for one in comparison.group([run, other])]
    assert len(set(names)) == 2 and all("training images=" in name for name in names)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda run: moved(run, "b", split="val"), "split that is evaluated is test in one and val"),
        (lambda run: moved(run, "b", dataset="other"), "dataset is"),
        (lambda run: moved(run, "b", test_counts=[4, 4, 4, 5]), "one has 16 test images, the other 17"),
        (lambda run: moved(run, "b", test_counts=[4, 4, 3, 5]), "different numbers of test images"),
        (lambda run: run._replace(facts=run.facts._replace(class_names=("a", "b", "c", "d"))), "in one of them alone"),
        (lambda run: run._replace(names=Names(["other.jpg"] * 16)), "16 test images are other files"),
        (
            lambda run: run._replace(predictions=run.predictions._replace(labels=run.predictions.labels[::-1])),
            "16 test images have other labels",
        ),
        (lambda run: moved(run._replace(predictions=None), "b", rows_checksum="1"), "is not known"),
    ],
)
def test_runs_on_other_test_images_are_refused_in_plain_words(change, words):
    run = content(classes=4)._replace(names=Names([f"{row}.jpg" for row in range(16)]))
    comparable.check_same_test_images([run, run])
    with pytest.raises(ConfigError, match="cannot be compared") as error:
        comparable.check_same_test_images([run, change(run)])
    assert words in str(error.value)


def test_what_a_run_promises_has_no_columns_of_the_only_group():
    none = {"coverage": None, "size": None}
    part = {"coverage": 0.9, "size": 1.5}
    of = part | {"macro": 0.9, "below_half": 0.0, "many": part, "medium": none, "few": none}
    found = {
        "coverage": 0.9, "range": (0.88, 0.92), "number": 100, "source": "val split", "without_promise": 0, "curve": [],
        "sets": {"marginal": of, "macro": of}, "unlike": {"level": 0.05, "all": 0.1, "many": 0.1, "few": None,
        "medium": None}, "selective": [{"answered": 0.9, "accuracy": 0.9} | {
            name: {"refused": share, "accuracy": share} for name, share in (("many", 0.1), ("medium", None),
                                                                            ("few", None))}],
    }  # fmt: skip
    assert "many" not in promises.section({"trust": found}).replace("how many", "")
    of["few"] = part
    assert ">few<" in promises.section({"trust": found}) and ">of many<" in promises.section({"trust": found})
