"""What step_time.py writes and prints: shares, ratios, the Markdown table."""

import datetime
import platform
import statistics

import flax
import jax
import jaxlib
import numpy as np
import optax

from ncl_jax.storage.records import device_name

# heading: (record, first record) -> cell, "-" where there is nothing to show
COLUMNS = {
    "method": lambda r, _: f"`{r['method']}`",
    "strategy, precision, steps a call": lambda r, _: f"{r['strategy']}, {r['precision']}, {r['steps_per_call']}",
    "ours with augmentation": lambda r, _: f"{_ms(r, 'augmented')}, {r['images_per_second']['augmented']:.0f} images/s",
    "of the first row's": lambda r, first: f"{r['milliseconds']['augmented'] / first['milliseconds']['augmented']:.2f}",
    "ours, ready batches": lambda r, _: _ms(r, "ready"),
    "PyTorch, ready batches": lambda r, _: _ms(r, "torch"),
    "PyTorch / ours, median (range)": lambda r, _: _ratio(r, "torch"),
    "PyTorch at its best": lambda r, _: _ms(r, "best"),
    "its best / ours, median (range)": lambda r, _: _ratio(r, "best"),
    "compilation": lambda r, _: f"{r['compile_seconds']:.0f} s",
    "roofline / ours": lambda r, _: f"{100 * r['roofline']['bound_ms'] / r['milliseconds']['augmented']:.0f} %",
}


def spread(values):
    """Median, least and most."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(args, method, variant, kept, notes):
    """A method's record in one variant. Ratios and shares are taken repeat by repeat."""
    seconds, supervised = kept[method, variant], kept.get(("ncl_supervised", variant))
    pairs = lambda a, b, of: spread(of(x, y) for x, y in zip(a, b, strict=True))  # noqa: E731
    share = lambda whole, rest: 1 - rest / whole  # noqa: E731
    record = {"method": method, **variant._asdict(), "seconds": seconds, **notes}
    record["milliseconds"] = {side: 1000 * statistics.median(values) for side, values in seconds.items()}
    record["images_per_second"] = {side: args.batch / statistics.median(values) for side, values in seconds.items()}
    record["augmentation_share"] = pairs(seconds["augmented"], seconds["ready"], share)
    for side in {"torch", "best"} & seconds.keys():
        record.setdefault("ratio", {})[side] = pairs(seconds[side], seconds["ready"], lambda torch, ours: torch / ours)
    if method == "ncl" and supervised:
        record["self_supervision_share"] = {s: pairs(values, supervised[s], share) for s, values in seconds.items()}
    return record


def report(args, records, peers):
    """What the JSON file holds."""
    versions = {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__}
    versions |= {"flax": flax.__version__, "optax": optax.__version__, "numpy": np.__version__}
    return {
        "date": datetime.date.today().isoformat(),
        "device": device_name(jax.devices()[:1]),
        "versions": versions | ({"torch": records[0]["torch"]["torch"]} if peers else {}),
        "torch_threads": peers["torch"][0].facts["threads"] if peers else None,
        "arguments": {name: value for name, value in vars(args).items() if name not in ("torch", "out", "tuned")},
        "records": records,
    }


def text(content):
    """The figures as Markdown, with where they come from."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    arguments = content["arguments"]
    about = f"{arguments['num_experts']} experts (NCL++: 2), batch {arguments['batch']}, {arguments['repeats']} repeats"
    return f"\n{content['device']}; {versions}; {about}; {content['date']}\n\n{table(content)}"


def table(content, columns=tuple(COLUMNS)):
    """The figures as Markdown; without the columns in which all rows say the same."""
    records = content["records"]
    shown = {name: [COLUMNS[name](record, records[0]) for record in records] for name in columns}
    shown = {name: cells for name, cells in shown.items() if len({*cells}) > 1 or (len(cells) == 1 and cells != ["-"])}
    rows = [shown, ["---"] * len(shown), *zip(*shown.values(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _ms(record, side):
    return f"{record['milliseconds'][side]:,.0f} ms" if side in record["milliseconds"] else "-"


def _ratio(record, side):
    return (
        "{median:.2f} ({min:.2f} to {max:.2f})".format(**record["ratio"][side])
        if side in record.get("ratio", ())
        else "-"
    )
