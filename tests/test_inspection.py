"""The page of `ncl-jax inspect`: near copies and flipped labels end to end, odd names, many classes, a browser."""

import io
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
from PIL import Image
from test_own_images import make_folder

from ncl_jax import cli
from ncl_jax.config import build_data
from ncl_jax.config import files as config_files
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.images import examine
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.report import findings, inspection
from ncl_jax.report.findings import Findings, Remark
from ncl_jax.report.html import POLICY, capital
from ncl_jax.runs import findings as of_run
from ncl_jax.trust.duplicates import Pairs
from ncl_jax.trust.labels import Suspects

PICTURES = True
ODD = 'a "quoted" <script>alert(1)</script>\n& line.jpg'


def photograph(seed, side=48):
    """Smooth as a photograph: uint8 [side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(image).save(file, "JPEG", **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes of photographs, and a test image that is a smaller and worse copy of a training image."""
    root = tmp_path / "data"
    for split, number in (("train", 20), ("test", 5)):
        for c in range(2):
            for i in range(number):
                save(root / split / f"c{c}" / f"{i}.jpg", photograph([c, i, split == "test"]))
    copy = Image.fromarray(photograph([0, 3, 0])).resize((40, 40), Image.Resampling.BICUBIC)
    save(root / "test" / "c0" / ODD, np.asarray(copy), quality=40)
    save(root / "train" / "c1" / "same.jpg", photograph([1, 4, 0]))
    (root / "train" / "c1" / "7.jpg").write_bytes(b"no image")
    return root


def inspect(folder, out, *flags):
    return cli.attempt("inspect", [f"--config=folder:dir={folder},image_size=16", f"--out={out}", *flags])


class Page(HTMLParser):
    """The words of a page, the addresses of what it loads, and the ids that its links lead to."""

    def __init__(self, text):
        super().__init__()
        self.words, self.sources, self.ids = "", [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "img", "object", "iframe")
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.ids |= {value for name, value in attributes if name == "id"}
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.words += data


def check(text):
    """What holds for every page; its words."""
    page = Page(text)
    assert POLICY in text and len(text.encode()) < 5_000_000
    assert all((source.startswith("#") and source[1:] in page.ids) or source == "data:," for source in page.sources)
    shown = set(re.findall(r'<i class="t (i[\w-]+)"', text))
    assert shown == set(re.findall(r"^(?:<style>)?\.(i[\w-]+)\{background", text, re.MULTILINE))
    return page.words


def test_copies_are_found_and_everything_is_on_the_page(folder, tmp_path, capfd):
    message, code = inspect(folder, tmp_path / "out")
    printed = capfd.readouterr().out
    assert code == 1 and "1 problem would stop" in message
    assert r"near duplicates of training images in test: 1" in printed
    assert r'train train/c0/3.jpg is nearly test test/c0/a "quoted" <script>alert(1)</script>\n& line.jpg' in printed
    assert "among training images: 1" in printed and "train/c1/4.jpg is nearly train train/c1/same.jpg" in printed
    assert "labels and outliers need the features of a pretrained backbone" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["class_sizes.png", "inspect.html"]
    words = check((tmp_path / "out" / "inspect.html").read_text())
    for text in (
        "data: 41 training",
        "Unreadable images in train: 1",
        r"<script>alert(1)</script>\n& line.jpg",
        "c1/same.jpg",
    ):
        assert text in words
    message, code = inspect(folder, tmp_path / "out")
    assert code == 1 and "class_sizes.png exists already" in message
    assert "--out=FOLDER" in message and "--picture" not in message
    assert inspect(folder, tmp_path / "out", "--force")[1] == 1


def test_the_page_lies_beside_the_picture(folder, tmp_path):
    assert inspect(folder, tmp_path / "out", f"--picture={tmp_path}/sizes.svg")[1] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out", "sizes.svg"}
    cli.attempt("inspect", [f"--config=folder:dir={folder},image_size=16", f"--picture={tmp_path}/b.png"])
    assert (tmp_path / "inspect.html").exists()
    (tmp_path / "file").write_text("")
    message, code = inspect(folder, tmp_path / "file" / "below")
    assert code == 1 and "--out=" in message


@pytest.fixture
def features(folder, monkeypatch):
    """The folder's data, as a backbone that separates the classes would see it, with a flipped label and an outlier."""
    config = config_files.load(f"folder:dir={folder},image_size=16")

    def made(config, data, rows, command=()):
        found = {}
        for name, split in (("train", data.train), (data.facts.split, data.test)):
            of = [int("/c1/" in str(path)) for path in split.images.names[rows[name]]]
            seeds = [int(np.frombuffer(str(path).encode(), np.uint8).sum()) for path in split.images.names[rows[name]]]
            noise = np.stack([np.random.default_rng(seed).normal(size=12) for seed in seeds])
            found[name] = (6 * np.eye(2, 12)[of] + noise).astype(np.float32)
        found["train"][2] = -9
        return found, ""

    monkeypatch.setattr(of_run, "of_backbone", made)
    return config


def test_a_flipped_label_is_found_with_its_neighbours(folder, features, tmp_path, capfd):
    (folder / "train" / "c1" / "7.jpg").unlink()
    fixed = tmp_path / "fixed.csv"
    fixed.write_text("file,label\ntrain/c0/5.jpg,c1\n")  # a wrong correction is as good as a wrong label
    message, code = inspect(folder, tmp_path / "out", f"--labels={fixed}")
    printed = capfd.readouterr().out
    assert code == 0, message
    assert "may be wrong: 1\n    train train/c0/5.jpg: c1, perhaps c0" in printed
    assert re.search(r"resemble no other: \d+\n    train train/c0/10.jpg", printed)  # the third, 0, 1, 10, ...
    table = (tmp_path / "out" / "suspected_labels.csv").read_text().splitlines()
    assert table[0].startswith("file,label,given,suggested") and table[1].startswith("train/c0/5.jpg,c0,c1,c0,-")
    message, code = inspect(folder, tmp_path / "out", f"--labels={tmp_path}/out/suspected_labels.csv", "--force")
    assert code == 1 and "would be overwritten" in message
    words = check((tmp_path / "out" / "inspect.html").read_text())
    assert "1 label may be wrong" in words and "given: c1suggested: c0" in words and "Unlike all others" in words


def test_unreadable_images_do_not_shift_the_rows(folder, features):
    for name in ("0.jpg", "1.jpg"):
        (folder / "train" / "c0" / name).write_bytes(b"")
    data = build_data.data(features)
    examined = {name: examine.examine(split, "") for name, split in data.splits().items()}
    found = of_run.find(features, data, examined)
    readable = np.flatnonzero([bool(content) for content in examined["train"].contents])
    assert found.outliers is not None and found.outliers[0] == readable[2]


def test_what_is_too_large_is_said(folder, tmp_path, capfd, features, monkeypatch):
    monkeypatch.setattr(of_run, "MOST_SCORES", 10)
    inspect(folder, tmp_path / "out")
    assert "labels were not judged: 40 images of 2 classes" in capfd.readouterr().out
    monkeypatch.setattr(of_run, "MOST_IMAGES", 10)
    inspect(folder, tmp_path / "out", "--force")
    assert "were not looked for: 41 images are more than 10" in capfd.readouterr().out
    assert not re.search("near duplicates of", capfd.readouterr().out)


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {"a": 2, "b": 1, "c": 1}])
def test_a_few_images_are_enough(tmp_path, counts, capfd, monkeypatch):
    root = make_folder(tmp_path / "data", ("train", "test"), counts)
    monkeypatch.setattr(of_run, "of_backbone", lambda config, data, rows, command=(): (
        {name: np.eye(len(of), 8, dtype=np.float32) for name, of in rows.items()}, ""))  # fmt: skip
    message, code = inspect(root, tmp_path / "out", "--config.optim.batch_size=1")
    assert code == 0, message
    assert f"labels cannot be judged: {len(counts)}" in capfd.readouterr().out
    check((tmp_path / "out" / "inspect.html").read_text())
    assert len((tmp_path / "out" / "suspected_labels.csv").read_text().splitlines()) == 1


def inspected(classes, images=3, root=None, name="data <&>"):
    """What a page shows of random images, with something of everything."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), images)
    pixels = rng.integers(0, 256, (len(labels), 12, 10, 3)).astype(np.uint8)
    split = Split(pixels, labels)
    if root is not None:
        split = Split(Files(root, np.array([f"{row} {ODD}" for row in range(len(labels))]), labels), labels)
    names = tuple(f'<b>class "{c}"' for c in range(classes))
    facts = Facts("folder", (8, 8, 3), names, (images,) * classes, "0")
    data = Data(facts, split, split, {}, (), np.arange(len(labels)))
    rows = rng.integers(0, len(labels), 90)
    pairs = Pairs(rows, rows[::-1], np.zeros(90), np.linspace(0, 0.2, 90))
    suspects = Suspects(rows, (labels[rows] + 1) % classes, np.full(90, -5.0), np.full(90, 0.9), np.full(90, 0.8))
    examples = np.where(rng.random((90, 4)) < 0.2, -1, rng.integers(0, len(labels), (90, 4)))
    found = Findings(
        pairs, pairs, "pixels", (0.8, 0.7), suspects, examples, [0, 1], rows, np.full(90, 3.0), ["a <note>"]
    )
    remark = Remark("something & <more>", [f"<item> {i}" for i in range(300)])
    return inspection.Inspected(name, data, found, [remark], [remark, Remark("plain")])


@pytest.mark.parametrize(("classes", "images"), [(2, 2), (12, 30), (1000, 2)])
def test_pages_of_any_number_of_classes(classes, images):
    of = inspected(classes, images)
    words = check(inspection.page(of))
    assert 'class "0"' in words and "nearest 40 of 90" in words and "90 labels may be wrong" in words
    assert "80.0 % accuracy with them and 70.0 % without" in words and "... and 100 more" in words
    assert ("largest and smallest of 1,000" in words) == (classes == 1000)
    assert "The other 70 labels" in words and "neighbours_vote" in words  # all suspects, and the table's columns
    assert len(findings.lines(of.data, of.found)) == 6


def test_pictures_stop_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(inspection, "PICTURES", 20_000)
    assert len(inspection.page(inspected(12, 30))) < 20_000 + 150_000
    whole = inspection.page(inspected(12, 30))
    assert 'class="t soft"' in whole


def test_images_that_have_gone_leave_their_names(tmp_path):
    text = inspection.page(inspected(3, 4, root=tmp_path))
    assert "background-image" not in text and "alert(1)&lt;/script&gt;\\n&amp; line.jpg" in text


@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium")
def test_a_browser_shows_the_page_without_an_error_or_a_request(tmp_path):
    (tmp_path / "page.html").write_text(inspection.page(inspected(12)))
    shown, console, fetched = browser.open_page(tmp_path / "page.html", tmp_path)
    assert not console and not fetched
    for heading in ("Labels that may be wrong", "In train and in test", "Twice in train", "Unlike all others"):
        assert heading in shown


def test_a_small_grey_image_does_not_depend_on_the_size():
    large = photograph(3, 96)
    buffer = io.BytesIO()
    Image.fromarray(large).resize((40, 60)).save(buffer, "JPEG", quality=50)
    small = examine.small_grey(np.asarray(Image.open(buffer)))
    assert np.abs(small.astype(int) - examine.small_grey(large)).max() < 12


@pytest.mark.parametrize(
    ("words", "shown"), [("a b", "A b"), ("tables/c.csv is", "tables/c.csv is"), ("c.csv: 3", "c.csv: 3"), ("", "")]
)
def test_paths_keep_their_letters(words, shown):
    assert capital(words) == shown
