"""The page of a run, and of several: every section from figures that are known, read back and opened in a browser."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import browser
import matplotlib
import numpy as np
import pytest
from PIL import Image

from ncl_jax import cli, methods
from ncl_jax.cli.report import make
from ncl_jax.config import base_config, choose_method
from ncl_jax.config.choose import method_of
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.evaluation import metrics, predictions
from ncl_jax.methods import METHODS
from ncl_jax.report import charts, comparison, confusion, html, page, plots
from ncl_jax.report.content import Names, RunContent
from ncl_jax.runs.results import write
from ncl_jax.storage.directory import RunDir

PICTURES = True
SECTIONS = ["Mistakes, the most confident first", "Confused pairs", "Confusion matrix", "Every class", "Figures",
            "Head and tail", "Confidence", "Do the experts agree?", "Training", "The run"]  # fmt: skip
LABELS, TOP = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 1, 1, 1, 0, 0, 2, 3])


def content(seed=0, classes=10, experts=3, name="run", each=4, **fields):
    """A run's content with random answers, of classes that are worse the smaller they are; `each`: test images of each
    class."""
    rng, counts = np.random.default_rng(seed), np.geomspace(500, 5, classes).astype(int)
    config = base_config()
    config.seed = seed
    config.update_from_flattened_dict(fields)
    facts = Facts(
        "shirts & <shoes>", (8, 8, 3), tuple(f"class <{c}>" for c in range(classes)), tuple(counts.tolist()), "0"
    )
    labels = np.repeat(np.arange(classes), each)

    def answer():
        return np.where(rng.random(len(labels)) < counts[labels] / 500, labels, rng.integers(0, classes, len(labels)))

    top = np.stack([answer() for _ in range(1 + experts)]).astype(np.int32)
    sure = rng.random(top.shape).astype(np.float32)
    answers = metrics.Answers(labels, labels >= 0, top, sure, sure[0] / 3, sure[0] / 2)
    images = rng.integers(0, 255, (len(labels), 8, 8, 3), dtype=np.uint8)
    train_labels = np.repeat(np.arange(classes), counts)
    train = Split(np.resize(images, (len(train_labels), 8, 8, 3)), train_labels)

    def nearest(rows):
        near = rng.integers(0, len(train_labels), (len(rows), 3)).astype(np.int32)
        away = np.full(near.shape, 0.25, np.float32)
        return predictions.Near(rows, near, train_labels[near].astype(np.int32), away)

    found = predictions.make(answers, Split(images, labels), train, classes, nearest)
    return RunContent(name, results(facts, top, labels, config), facts, logged(), found)


def results(facts, top, labels, config):
    """The content of `results.json` for these answers."""

    def share(flags):
        return float(flags.mean()) if len(flags) else None

    def figures(answers):
        right = answers == labels
        per_class = [share(right[labels == c]) for c in range(facts.num_classes)]
        groups = {name: share(right[mask[labels]]) for name, mask in facts.groups()["papers"].items()}
        return {"accuracy": float(right.mean()), **groups, "nll": 1.5, "ece": 0.04, "per_class": per_class}

    per_class = np.linspace(0.1, 0.6, facts.num_classes).tolist()
    disagreement = {"all": 0.3, "many": 0.1, "medium": 0.3, "few": 0.5, "per_class": per_class}
    return {
        "dataset": facts.name, "split": "test", "num_train": facts.num_train, "class_counts": list(facts.class_counts),
        "rows_checksum": "0", "epoch": 3, "step": 30,
        "test_counts": np.bincount(labels, minlength=facts.num_classes).tolist(),
        "ensemble": figures(top[0]), "experts": [figures(t) for t in top[1:]], "best_on_test": None,
        "disagreement": {"kl": disagreement, "top1": disagreement}, "seconds": 60.0, "images_per_second": 100.0,
        "device": "1 x CPU", "config": config.to_dict(), "versions": {"jax": "0.0"},
    }  # fmt: skip


def logged():
    """A run's `metrics.jsonl`."""
    train = [{"kind": "train", "epoch": e, "parts": {"nil": 3 / e, "nbod": 0.1, "intra": 0.0}} for e in (1, 2, 3)]
    figures = {"accuracy": 0.5, "many": 0.7, "medium": 0.5, "few": 0.1}
    return [*train, *({"kind": "evaluation", "epoch": e, "ensemble": figures} for e in (1, 2, 3))]


class Text(HTMLParser):
    """A page's headings and the addresses of what it loads."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.sources, self.names, self._inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._inside = tag in ("h1", "h2")
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.names += [value for name, value in attributes if name == "id"]
        assert tag != "script"

    def handle_data(self, data):
        if self._inside:
            self.headings.append(data)

    def handle_endtag(self, tag):
        self._inside = False


def drawings(text):
    """The page's charts as XML: they must be well-formed."""
    return [ET.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


@pytest.mark.parametrize(("classes", "experts"), [(10, 3), (10, 1), (300, 2)])
def test_a_runs_page_has_every_section_and_stands_alone(classes, experts):
    run = content(classes=classes, experts=experts)
    run = run if experts > 1 else run._replace(results=run.results | {"disagreement": None})
    text = page.page(run)
    wanted = [name for name in SECTIONS if experts > 1 or name != "Do the experts agree?"]
    assert Text(text).headings[1:] == wanted
    assert all(source.startswith(("data:", "#")) for source in Text(text).sources)
    assert "http:" not in text and "https:" not in text and "default-src 'none'; img-src data:" in text
    assert len(text) < 5_000_000 and drawings(text)
    anchors = {source[1:] for source in Text(text).sources if source.startswith("#run-")}
    assert "run-worst" in anchors and f"run-class-{classes - 1}" in anchors and anchors <= set(Text(text).names)
    assert "class &lt;3&gt;" in text and "class <3>" not in text


def test_a_run_without_predictions_says_how_to_get_them():
    text = page.page(content()._replace(predictions=None))
    assert "ncl-jax evaluate --run=DIR --finish" in text
    assert Text(text).headings[1:] == [*SECTIONS[4:6], *SECTIONS[7:]]


def test_a_run_that_kept_no_pictures_says_how_to_get_them():
    run = content()
    old = run.predictions._replace(true=None, margin=None, near=None, pictures=None)
    text = page.page(run._replace(predictions=old))
    assert "ncl-jax evaluate --run=DIR --finish" in text and "background-image" not in text
    assert Text(text).headings[1:] == SECTIONS


def test_an_unfinished_runs_page_says_so():
    run, longer = content(epochs=3), content(epochs=6)
    assert "Unfinished" not in page.page(run) and "Unfinished: epoch 3 of 6" in page.page(longer)
    stopped = longer.results | {"best_on_val": {"epoch": 1, "accuracy": 0.5, "patience": 1}}
    assert "Unfinished" not in page.page(longer._replace(results=stopped))


def test_a_page_without_images_names_the_mistakes_all_the_same():
    run = content()
    shown, mailed = page.page(run), page.page(run, with_images=False)
    assert "background-image" in shown and "background-image" not in mailed and 'class="t ' not in mailed
    assert mailed.count("taken for <b>") == shown.count("taken for <b>") > 5 and "run-class-3" not in mailed


def test_each_picture_is_stored_once_and_the_page_keeps_to_its_room():
    run = content(classes=40)
    text = page.page(run)
    rules = re.findall(r"\.(run-\w+)\{background-image", text)
    used = re.findall(r'class="t (run-\w+)"', text)
    assert len(rules) == len(set(rules)) > 40 and set(used) <= set(rules) and len(used) > len(rules)
    small = page.sections(run, "run", room=len(page.sections(run, "run", with_images=False)) + 80_000)
    assert 0 < len(re.findall("background-image", small)) < len(rules)
    assert len(small) < len(text) - 10_000


@pytest.mark.parametrize("each", [[1, 1, 1], [2, 0, 9], [0, 0, 1]])
def test_few_test_images_and_classes_without(each):
    text = page.page(content(classes=3, each=each))
    assert Text(text).headings[1:] == SECTIONS and "nan" not in text.partition("<svg")[0]
    assert f"{sum(each)} test images are recognised" in re.sub("<[^>]+>", "", text)
    assert ("no test image: nothing is known" in text) == (0 in each)


def test_names_that_would_be_markup_are_text():
    run = content()
    names = ('"><script>alert(1)</script>', "line\nbreak", "'onload='x", *run.facts.class_names[3:])
    files = ['"><img src=x onerror=alert(1)>'] * 40
    run = run._replace(facts=run.facts._replace(class_names=names), names=Names(files, []))
    text = page.page(run)
    assert (
        "<script" not in text and "<img" not in text and "&lt;img src=x" in text and Text(text).headings[1:] == SECTIONS
    )


def test_own_images_are_named_by_their_folder():
    run = content(**{"data.name": "folder", "data.dir": "photos/of birds"})
    assert Text(page.page(run)).headings[0].startswith("ncl_supervised on of birds: ")


def test_names_that_are_no_text_are_shown_as_far_as_they_are(tmp_path):
    run = content()
    run = run._replace(facts=run.facts._replace(class_names=("caf\udce9", *run.facts.class_names[1:])))
    assert "caf?" in page.page(run)
    assert plots.png(charts.per_class(run.results, run.facts.class_names))


def test_a_page_without_a_log_has_no_curves():
    assert "Training" not in Text(page.page(content()._replace(metrics=[]))).headings


@pytest.mark.slow
@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium")
@pytest.mark.parametrize("runs", [1, 4])
def test_a_browser_shows_the_page_without_an_error_or_a_request(tmp_path, runs):
    all_runs = [content(seed % 2, name=f"run {seed}", **{"loss.balanced": seed < 2}) for seed in range(runs)]
    text = page.page(all_runs[0]) if runs == 1 else comparison.page(all_runs)
    (tmp_path / "page.html").write_text(text)
    shown, console, fetched = browser.open_page(tmp_path / "page.html", tmp_path)
    assert not console and not fetched
    assert all(heading.replace("'", "&#39;") in shown or heading in shown for heading in SECTIONS)


@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium")
def test_what_a_page_should_not_hold_neither_runs_nor_is_fetched(tmp_path):
    body = "<script>document.body.id = 'ran'</script><img src='http://example.com/a.png'><i style='color:red'></i>"
    (tmp_path / "page.html").write_text(html.document("t", body))
    shown, console, fetched = browser.open_page(tmp_path / "page.html", tmp_path)
    assert 'id="ran"' not in shown and not fetched and "Content Security Policy" in console[0]


@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium")
def test_the_browser_check_finds_errors_and_requests(tmp_path):
    (tmp_path / "bad.html").write_text("<script>missing()</script><img src='http://example.com/a.png'>")
    _, console, fetched = browser.open_page(tmp_path / "bad.html", tmp_path)
    assert "missing is not defined" in console[0] and "http://example.com/a.png" in fetched


def test_files_that_have_gone_are_named_and_the_rest_is_shown(tmp_path):
    run, pixels = content(), np.zeros((8, 8, 3), np.uint8)
    places = [f"{row}.png" for row in range(40)]
    for name in places[::2]:
        Image.fromarray(pixels).save(tmp_path / name)
    labels, train = run.predictions.labels, run.predictions.labels.astype(int)
    files = Files(tmp_path, np.array(places), np.zeros(40, int))
    answers = metrics.Answers(labels, labels >= 0, *run.predictions[1:5])
    found = predictions.make(answers, Split(files, labels), Split(np.zeros((40, 8, 8, 3), np.uint8), train), 10)
    text = page.page(run._replace(predictions=found, names=Names(places, places)))
    wrong = set(np.flatnonzero(found.top[0] != labels).tolist())
    gone = [row for row in wrong if row % 2]
    assert f"could not be read when this page&#x27;s pictures were made: {len(gone)} images" in text and ".png" in text
    assert "background-image" in text and "nearest training images were not found" in text


def test_answers_are_joined_in_order_without_padding():
    def batch(first, valid):
        rows = np.arange(first, first + 3)
        return metrics.Answers(rows, np.array(valid), rows[None].repeat(2, 0), np.ones((2, 3)), rows / 9, rows / 8)

    joined = metrics.join([batch(0, [True] * 3), batch(3, [True, True, False])])
    assert joined.labels.tolist() == [0, 1, 2, 3, 4] and joined.top.shape == (2, 5) and joined.true[3] == 3 / 9


def test_the_confusion_matrix_is_sorted_by_size():
    counts, rows = confusion.matrix(LABELS, TOP, (5, 10, 50, 200))
    assert [classes.tolist() for classes in rows] == [[3], [2], [1], [0]]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 2, 0], [0, 0, 1, 1]]


def test_many_classes_share_rows():
    labels = np.arange(100)
    counts, rows = confusion.matrix(labels, labels, np.arange(100, 0, -1))
    assert len(rows) == confusion.MOST_ROWS and counts.sum() == 100 == np.trace(counts)


def test_a_figure_of_a_page_takes_its_colours_says_its_points_and_keeps_its_names_apart():
    results = content().results
    figures = [plots.svg(charts.per_class(results, ['<b>&"', *"abcdefghi"]), label) for label in ("run0", "run1")]
    assert figures[0] == plots.svg(charts.per_class(results, ['<b>&"', *"abcdefghi"]), "run0")
    names = [set(re.findall(r'id="([^"]+)"', figure)) for figure in figures]
    assert names[0] and not names[0] & names[1]
    for text in figures:
        drawing = ET.fromstring(text)
        said = [title.text for title in drawing.iter("title")]
        assert len(said) == 20 and any(line.startswith('<b>&", 500 training images: ensemble') for line in said)
        assert "var(--c0)" in text and "var(--ink)" in text and not any(c in text for c in plots.VARIABLES)
        used = re.findall(r'(?:url\(|href=")#([^")]+)', text)
        assert used and set(used) <= set(re.findall(r'id="([^"]+)"', text))


def test_a_users_settings_of_matplotlib_do_not_matter(monkeypatch):
    plain = plots.svg(charts.class_sizes("birds", [9, 4]), "sizes")
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    assert plots.svg(charts.class_sizes("birds", [9, 4]), "sizes") == plain


@pytest.mark.slow
def test_runs_are_grouped_by_configuration_and_named_by_what_differs():
    rates = [(rate, seed) for rate in (0.1, 0.2) for seed in (0, 1)]
    runs = [content(seed, name=f"{rate}-{seed}", **{"optim.learning_rate": rate}) for rate, seed in rates]
    runs.append(content(0, name="plain", **methods.fields("ce", "official")))
    groups = comparison.group(runs)
    assert [(one.name, len(one.runs)) for one in groups] == [
        ("ncl_supervised, optim.learning_rate=0.1", 2), ("ncl_supervised, optim.learning_rate=0.2", 2), ("ce", 1),
    ]  # fmt: skip
    text = comparison.page(runs)
    assert drawings(text) and Text(text).headings[1:3] == ["Mean and spread", "Paired differences"]


def test_differences_are_paired_by_seed():
    def run(seed, accuracy):
        base = content(seed)
        return base._replace(results=base.results | {"ensemble": base.results["ensemble"] | {"accuracy": accuracy}})

    base = comparison.Group("a", [run(0, 0.5), run(1, 0.7)])
    other = comparison.Group("b", [run(1, 0.8), run(2, 0.9), run(0, 0.52)])
    np.testing.assert_allclose(comparison.differences(other, base, "accuracy"), [0.1, 0.02])
    assert comparison.spread([0.1, 0.02]) == "6.0 ± 5.7"
    assert comparison.spread([0.1, None]) == "-" and comparison.spread([0.123]) == "12.3"


def test_runs_of_other_lengths_are_groups_of_their_own_and_none_counts_twice():
    longer = content(1, name="longer")
    longer.results["epoch"] = 9
    assert [one.name for one in comparison.group([content(0), longer])] == [
        "ncl_supervised, trained epochs=3", "ncl_supervised, trained epochs=9",
    ]  # fmt: skip
    longer.results["config"] |= {"epochs": 9, "eval_every": 3}
    assert [one.name for one in comparison.group([content(0), longer])] == [
        "ncl_supervised, epochs=400", "ncl_supervised, epochs=9",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="a and b have the same configuration and seed 0"):
        comparison.group([content(name="a"), content(name="b")])


def test_a_class_without_test_images_is_left_out_of_the_lines():
    runs = [content(seed, name=f"run {seed}") for seed in (0, 1)]
    for run in runs:
        run.results["ensemble"]["per_class"][4] = None
    assert "nan" not in comparison.lines(comparison.group(runs))


@pytest.mark.parametrize("method", METHODS)
def test_a_configurations_method_is_recognised(method):
    config = base_config()
    choose_method(config, method)
    assert method_of(config) == method
    choose_method(config, method, "equations")
    config.model.num_experts = 1
    assert method_of(config) in (method, f"{method} (equations)")
    config.loss.hard_weight = 0.3
    assert method_of(config) == config.loss.name


def finished(path, log=True, seed=0):
    """A run's directory as training leaves it."""
    directory, run = RunDir(path), content(seed)
    directory.path.mkdir()
    test = Split(np.zeros((40, 8, 8, 3), np.uint8), run.predictions.labels)
    data = Data(run.facts, test, test, {})
    directory.begin(base_config(), data, {})
    if log:
        lines = [json.dumps({"step": record["epoch"]} | record) + "\n" for record in run.metrics]
        directory.metrics.write_text("".join(lines))
    answers = metrics.Answers(test.labels, test.labels >= 0, *run.predictions[1:5])
    write(directory, run.results, [answers], data, None, None)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("log", [True, False])  # somebody may have removed the file
def test_a_finished_run_has_its_plots_its_page_and_its_results(tmp_path, log):
    directory = finished(tmp_path / "run", log)
    for picture in (directory.curve, directory.per_class):
        assert picture.read_bytes().startswith(b"\x89PNG")
    headings = Text(directory.report.read_text()).headings[1:]
    assert headings == [name for name in SECTIONS if log or name != "Training"]
    assert json.loads(directory.results.read_text())["step"] == 30
    for file, number in ((directory.classes, 10), (directory.images, 40)):
        assert len(list(csv.DictReader(io.StringIO(file.read_text())))) == number
    assert make([directory.path]) == directory.report.read_text()


@pytest.mark.slow
def test_the_command_writes_a_page_of_one_run_and_of_several(tmp_path, monkeypatch, capsys):
    finished(tmp_path / "a")
    finished(tmp_path / "b", seed=1)
    monkeypatch.chdir(tmp_path)
    assert cli.attempt("report", ["a"]) == ("", 0)
    assert "page: report.html, open it in a browser" in capsys.readouterr().out
    assert "background-image" in (tmp_path / "report.html").read_text()
    assert cli.attempt("report", ["a", "--force", "--no-images"]) == ("", 0)
    assert "background-image" not in (tmp_path / "report.html").read_text()
    assert cli.attempt("report", ["a", "b", "--force"]) == ("", 0)
    assert "2 runs on shirts &amp; &lt;shoes&gt;" in (tmp_path / "report.html").read_text()
    for arguments, message in [
        (["a"], "--out=report.html exists"),
        (["a", "--out=none/report.html"], "--out=none/report.html cannot be written"),
        (["c", "--force"], "c is not a directory"),
    ]:
        assert message in cli.attempt("report", arguments)[0]
    (tmp_path / "a" / "results.json").unlink()
    assert "a has no results yet" in cli.attempt("report", ["a", "--force"])[0]
