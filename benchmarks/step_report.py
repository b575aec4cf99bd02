"""What step_time.py writes and prints: shares, ratios, the Markdown table."""

import datetime
import platform
import statistics

import flax
import jax
import jaxlib
import numpy as np
import optax

from ncl_jax.records import device_name

SIDES = ("ready", "torch")
HEADER = """
| method | strategy, precision, steps a call | ours with augmentation | images/s | augmentation | \
ours, ready batches | PyTorch, ready batches | PyTorch / ours (range) | self-supervision, ours / PyTorch | \
compilation | roofline / ours |
|---|---|---|---|---|---|---|---|---|---|---|"""


def spread(values):
    """Median, least and most."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(args, method, variant, kept, notes):
    """A method's record. Ratios and shares are taken repeat by repeat."""
    seconds = kept[method]
    pairs = lambda a, b, of: spread(of(x, y) for x, y in zip(a, b, strict=True))  # noqa: E731
    share = lambda whole, rest: 1 - rest / whole  # noqa: E731
    record = {"method": method, **variant._asdict(), "seconds": seconds, **notes}
    record["milliseconds"] = {side: 1000 * statistics.median(values) for side, values in seconds.items()}
    record["images_per_second"] = {side: args.batch / statistics.median(values) for side, values in seconds.items()}
    record["augmentation_share"] = pairs(seconds["augmented"], seconds["ready"], share)
    if "torch" in seconds:
        record["ratio"] = pairs(seconds["torch"], seconds["ready"], lambda torch, ours: torch / ours)
    if method == "ncl" and "ncl_supervised" in kept:
        record["self_supervision_share"] = {
            side: pairs(values, kept["ncl_supervised"][side], share) for side, values in seconds.items()
        }
    return record


def report(args, records, peer):
    """What the JSON file holds."""
    versions = {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__}
    versions |= {"flax": flax.__version__, "optax": optax.__version__, "numpy": np.__version__}
    return {
        "date": datetime.date.today().isoformat(),
        "device": device_name(jax.devices()[:1]),
        "versions": versions | ({"torch": records[0]["torch"]} if peer else {}),
        "torch_threads": peer and peer.facts["threads"],
        "arguments": {name: value for name, value in vars(args).items() if name not in ("torch", "out")},
        "records": records,
    }


def text(content):
    """The figures as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    arguments = content["arguments"]
    about = f"{arguments['num_experts']} experts (NCL++: 2), batch {arguments['batch']}, {arguments['repeats']} repeats"
    return "\n".join(
        [f"\n{content['device']}; {versions}; {about}; {content['date']}", HEADER, *map(_row, content["records"])]
    )


def _row(record):
    ms, ratio = record["milliseconds"], record.get("ratio")
    shares = record.get("self_supervision_share", {})
    form = f" ({record['chosen']})" if ratio else ""
    cells = [
        record["method"],
        f"{record['strategy']}, {record['precision']}, {record['steps_per_call']}",
        f"{ms['augmented']:.1f} ms",
        f"{record['images_per_second']['augmented']:.0f}",
        f"{100 * record['augmentation_share']['median']:.0f} %",
        *(
            f"{ms[s]:.1f} ms, {record['images_per_second'][s]:.0f} images/s{form * (s == 'torch')}" if s in ms else "-"
            for s in SIDES
        ),
        f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "-",
        " / ".join(f"{100 * shares[s]['median']:.0f} %" for s in SIDES if s in shares) or "-",
        f"{record['compile_seconds']:.1f} s",
        f"{100 * record['roofline']['bound_ms'] / ms['augmented']:.0f} %",
    ]
    return f"| {' | '.join(cells)} |"
