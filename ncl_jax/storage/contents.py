"""What the files of a run hold, for whoever wrote them: checks by `runtime.schema`, and how large each may be."""

from typing import Any

from ncl_jax.field import LARGEST
from ncl_jax.runtime.schema import anything, integer, list_of, mapping, maybe, number, record, refuse, text

MIB = 2**20
MOST_CONFIG, MOST_FACTS, MOST_RESULTS, MOST_PROGRESS, MOST_LINE = MIB, 16 * MIB, 64 * MIB, 64 * MIB, 64 * MIB
MOST_METRICS, MOST_LISTING = 2**30, 2**28  # of `metrics.jsonl` in bytes; of the unpacked list of files
MOST_RECORDS = 4_000_000  # of `metrics.jsonl`: two a trained epoch at most, of the most that there may be
MOST_SIDE, MOST_PIXELS = 2**14, 2**26  # of the images that a network sees
MOST_CLASSES, MOST_EXPERTS = 1_000_000, 10_000

_share, _count, _step = number(0, 1), integer(most=LARGEST), integer(most=LARGEST)
_groups = {name: maybe(_share) for name in ("many", "medium", "few")}
_nats = number(finite=False)  # of a model whose scores are not finite it is not either
_predictor = record(
    {
        "accuracy": maybe(_share), **_groups, "nll": maybe(_nats), "ece": maybe(_nats),
        "per_class": list_of(maybe(_share), 1, MOST_CLASSES),
    }
)  # fmt: skip
_means = record({"accuracy": maybe(_share), **_groups}, {"f1": maybe(_share)})
_differing = {name: maybe(_nats) for name in ("all", "many", "medium", "few")}
_pairs = record(_differing | {"per_class": list_of(maybe(_nats), 1, MOST_CLASSES)})
_figures = {
    "epoch": _step, "step": _step, "ensemble": _predictor, "experts": list_of(_predictor, 1, MOST_EXPERTS),
}  # fmt: skip
_best = maybe(record({"epoch": _step, "accuracy": _share}))
_best_on_val = record({"epoch": _step, "accuracy": _share, "patience": _step})
_known = {name: maybe(number()) for name in ("coverage", "macro", "below_half", "size", "empty", "single")}
_sets = record(_known | {name: record(_known) for name in _groups})
_answered = {name: record({"accuracy": maybe(_share), "refused": maybe(_share)}) for name in _groups}
_trust = record({
    "source": text(100), "number": _count, "coverage": _share, "range": list_of(_share, 2, 2),
    "sets": record({"marginal": _sets, "macro": _sets}), "without_promise": _count,
    "curve": list_of(record({"promised": _share} | _known), 0, 100),
    "selective": list_of(record({"answered": _share, "accuracy": maybe(_share)} | _answered), 0, 100),
    "unlike": maybe(record({"level": _share, "all": maybe(_share)} | {name: maybe(_share) for name in _groups})),
})  # fmt: skip
_teacher = record(
    {"accuracy": maybe(_share), **_groups, "nll": maybe(_nats), "ece": maybe(_nats)},
    {"classes": maybe(_share), "f1": maybe(_share)},
)
_pretrained = record(
    {},
    {
        "name": text(), "file": text(), "sha256": text(64), "license": text(1000), "text": mapping(anything),
        "teacher": mapping(anything),
    },
)  # fmt: skip
_baselines = mapping(record({"accuracy": _share, **_groups}, {"per_class": list_of(maybe(_share))}))
_time = _speed = number(0, 1e12)
_counts = list_of(_count, 1, MOST_CLASSES)
_known_results = record(
    {
        **_figures, "dataset": text(), "num_train": _count, "class_counts": _counts, "device": text(),
        "seconds": _time, "images_per_second": maybe(_speed), "config": mapping(anything),
    },
    {
        "split": text(), "rows_checksum": text(), "best_on_test": _best, "best_on_val": _best_on_val,
        "versions": mapping(text(1000)),
        "pretrained": maybe(_pretrained), "disagreement": maybe(record({"kl": _pairs, "top1": _pairs})),
        "baselines": _baselines,
        "teacher": _teacher, "operations": maybe(text()),
        "class_means": record({"ensemble": _means, "experts": list_of(_means)}), "test_counts": _counts,
        "trust": _trust, "data_notes": list_of(text()), "test_groups": _count,
        "moved": record({"accuracy": _share, "class_mean": _share}),
    },
)  # fmt: skip


def results(value: Any, name: str) -> None:
    """Checks the content of `results.json`."""
    _known_results(value, name)
    number_of = len(value["class_counts"])
    rows = {"ensemble": value["ensemble"], **{f"experts[{i}]": row for i, row in enumerate(value["experts"])}}
    rows |= {f"disagreement.{kind}": row for kind, row in (value.get("disagreement") or {}).items()}
    for place, row in rows.items():
        if isinstance(row, dict) and "per_class" in row:
            list_of(anything, number_of, number_of)(row["per_class"], f"{place}.per_class")
    if "test_counts" in value:
        list_of(anything, number_of, number_of)(value["test_counts"], "test_counts")


_known_facts = record(
    {
        "name": text(), "image_shape": list_of(integer(1, MOST_SIDE), 3, 3),
        "class_names": list_of(text(), 1, MOST_CLASSES), "class_counts": _counts, "rows_checksum": text(),
    },
    {"split": text(), "skipped": mapping(mapping(_count)), "corrected": mapping(_count)},
)  # fmt: skip


def facts(value: Any, name: str) -> None:
    """Checks the content of `dataset.json`."""
    _known_facts(value, name)
    height, width, channels = value["image_shape"]
    if channels != 3 or height * width > MOST_PIXELS:
        raise ValueError(f"image_shape={[height, width, channels]} must be H, W, 3 of at most {MOST_PIXELS:,} pixels")
    counts, names = value["class_counts"], value["class_names"]
    if len(counts) != len(names):
        raise ValueError(f"class_counts has {len(counts)} numbers, but class_names {len(names)} names")
    if not sum(counts):
        refuse(counts, "class_counts", "the numbers of training images, not only zeros")


def _history(value: Any, name: str) -> None:
    (list_of(number(finite=False)) if isinstance(value, list) else mapping(_history))(value, name)


_best_step = maybe(record({"step": _step, "accuracy": _share}))
progress = record(
    {},
    {
        "seconds": _time, "images_per_second": list_of(_speed), "best_on_test": _best,
        "best_on_val": record({"epoch": _step, "accuracy": _share}),
        "best": _best_step, "config": maybe(mapping(anything)), "pretrained": maybe(_pretrained),
        "convolution": maybe(text()), "device": maybe(text()), "history": _history, "trunk": text(64),
        "teacher": record({}, {"teacher": _teacher}), "baselines": _baselines,
    },
)  # fmt: skip
fingerprint = list_of(integer(most=2**32 - 1), 1, 1_000_000)
logged = record({"kind": text(100), "step": _step, "epoch": _step})
_of_kind = {
    "train": record({"parts": mapping(number(finite=False))}),
    "evaluation": record({"ensemble": record({"accuracy": maybe(_share), **_groups})}),
}


def shown(value: Any, name: str) -> None:
    """Checks an object of `metrics.jsonl` as far as a chart shows it."""
    logged(value, name)
    _of_kind.get(value["kind"], anything)(value, name)
