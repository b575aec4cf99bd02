"""Writes the tables of README and docs from the results of the runs behind them.

    python tools/make_tables.py                                  # every table again; a test fails where one differs
    python tools/make_tables.py --collect=DIR --name=NAME        # keeps the results of a comparison (ncl-jax ablate)
        --command=... --commit=... --machine=... --date=...

A comparison's results are `benchmarks/results/runs/NAME.json`: the command, commit, machine and date, and what each
`results.json` in the directories `METHOD-SEED` of DIR says, by method (or whatever else stands before the seed). The
scripts in `benchmarks/` write their own files. A table stands in a page between `<!-- table KIND NAME [ROW,...] -->`
and `<!-- end -->`: KIND is one of `KINDS`, NAME the file below `benchmarks/results/` that it is made of, without its
ending; ROWs are the methods that are shown, all if not given. A table of `SEVERAL` data sets is made of the files whose
names are NAME and ROW in one.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys

from ncl_jax.methods import METHODS
from ncl_jax.report import ablation, comparison, tables

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import evidence_tables  # noqa: E402
import flipped_labels  # noqa: E402
import input as feeding  # noqa: E402
import scaling  # noqa: E402
import short_schedules  # noqa: E402
import step_report  # noqa: E402
import trust_backtest  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEPT = ("ensemble", "experts", "disagreement", "class_counts", "images_per_second", "seconds", "epoch")
KEPT_IF_THERE = ("baselines",)
ABOUT = ("command", "commit", "machine", "date")
TABLE = re.compile(r"(<!-- table (\w+) ([\w/]+)(?: ([\w,]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
AGAINST = ("method", "ours, ready batches", "PyTorch, ready batches", "PyTorch / ours, median (range)")
GROUPS = ("accuracy", "many", "medium", "few")


def read(name: str) -> dict | list:
    """The content of a file of results."""
    lines = RESULTS / f"{name}.jsonl"
    if lines.exists():
        return [json.loads(line) for line in lines.read_text().splitlines()]
    return json.loads((RESULTS / f"{name}.json").read_text())


def about(results: dict) -> str:
    """Where a comparison's figures come from, as a line."""
    seconds = sum(run["seconds"] for runs in results["methods"].values() for run in runs)
    number = sum(map(len, results["methods"].values()))
    runs = f"{number} run{'s' * (number > 1)}, {seconds / 60:.0f} minutes of training steps"
    machine = f"on {results['machine']}, {results['date']}, commit {results['commit']}"
    return f"    {results['command']}\n\n{runs}{' in all' * (number > 1)}, {machine}."


def groups(results: dict) -> str:
    """The ensemble of each method by class size, mean ± standard deviation over seeds in %, the best in bold."""
    ensembles = {method: [run["ensemble"] for run in runs] for method, runs in results["methods"].items()}
    names = [name for name in GROUPS if all(run[name] is not None for runs in ensembles.values() for run in runs)]
    values = {method: [[run[name] for run in runs] for name in names] for method, runs in ensembles.items()}
    best = [max(map(statistics.fmean, column)) for column in zip(*values.values(), strict=True)]
    lines = [f"| {' | '.join(['test accuracy (%)', 'all', *names[1:]])} |", "|---" * (len(names) + 1) + "|"]
    for method, row in values.items():
        cells = [comparison.spread(cell) for cell in row]
        bold = [f"**{c}**" if statistics.fmean(v) == b else c for c, v, b in zip(cells, row, best, strict=True)]
        lines.append(f"| {' | '.join([f'`{method}`', *bold])} |")
    return "\n".join(lines)


def features(results: dict) -> str:
    """As `groups`, with the mean over classes, and below the simple classifiers on the same features."""
    rows = {f"`{method}`": [run["ensemble"] for run in runs] for method, runs in results["methods"].items()}
    first = next(iter(results["methods"].values()))
    rows |= {f"*{name}*": [run["baselines"][name] for run in first[:1]] for name in first[0]["baselines"]}
    names = [name for name in GROUPS[1:] if all(run[name] is not None for runs in rows.values() for run in runs)]
    names = names if len(names) > 1 else []  # one group alone is all of them
    heads = ["test accuracy (%)", "all", "mean of classes", *names]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, runs in rows.items():
        means = [statistics.fmean(share for share in run["per_class"] if share is not None) for run in runs]
        cells = [comparison.spread(cell) for cell in ([run["accuracy"] for run in runs], means)]
        cells += [comparison.spread([run[group] for run in runs]) for group in names]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def single(results: dict) -> str:
    """The mean single expert of each method."""
    experts = {
        method: [tables.mean_expert(run["experts"]) for run in runs] for method, runs in results["methods"].items()
    }
    return _figures("method | single expert", experts)


def distilled(results: dict) -> str:
    """Ensembles, their experts, and the student of each ensemble."""
    teachers, students = results["methods"]["ncl_supervised"], results["methods"]["student"]
    rows = {
        "the ensemble of three": [run["ensemble"] for run in teachers],
        "its best expert, chosen on the test set": [
            max(run["experts"], key=lambda expert: expert["accuracy"]) for run in teachers
        ],
        "its mean expert": [tables.mean_expert(run["experts"]) for run in teachers],
        "the student": [run["ensemble"] for run in students],
    }
    return _figures(" | all", rows)


def run(results: dict) -> str:
    """One run: its ensemble, its experts, and how often two experts name different classes."""
    ((found,),) = results["methods"].values()
    experts = {f"expert {number}": [figures] for number, figures in enumerate(found["experts"])}
    mean = {"mean expert": [tables.mean_expert(found["experts"])]}
    differ = found["disagreement"]["top1"]
    cells = [comparison.spread([differ[key]]) for key in ("all", *GROUPS[1:])]
    return (
        f"{_figures(' | all', {'ensemble': [found['ensemble']]} | experts | mean)}\n"
        f"| top-1 disagreement | {' | '.join(cells)} | |"
    )


def curve(results: dict) -> str:
    """The ensemble's accuracy at each evaluation, mean ± standard deviation over seeds in %."""
    curves = {method: [dict(run["curve"]) for run in runs] for method, runs in results["methods"].items()}
    lines = [f"| epoch | {' | '.join(f'`{method}`' for method in curves)} |", "|---" * (1 + len(curves)) + "|"]
    for epoch in next(iter(curves.values()))[0]:
        cells = [comparison.spread([values[epoch] for values in runs]) for runs in curves.values()]
        lines.append(f"| {' | '.join([str(epoch), *cells])} |")
    return "\n".join(lines)


def _figures(headings: str, rows: dict[str, list[dict]]) -> str:
    """Accuracy by class size and calibration, mean ± standard deviation over seeds in %."""
    lines = [f"| {headings} | many | medium | few | ECE |", "|---|---|---|---|---|---|"]
    for name, values in rows.items():
        cells = [comparison.spread([value[key] for value in values]) for key in (*GROUPS, "ece")]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def published(rows: list[dict]) -> str:
    """Published figures, and those of our run of the same data: single expert / ensemble, in %."""
    headings = [name for name in rows[0] if name != "run"]
    lines = [f"| {' | '.join([*headings, 'ours'])} |", "|---" * (len(headings) + 1) + "|"]
    for row in rows:
        lines.append(f"| {' | '.join([str(row[name]) for name in headings] + [_ours(row.get('run'))])} |")
    return "\n".join(lines)


def _ours(name):
    """The mean single expert and the ensemble of kept runs of NCL."""
    if name is None:
        return ""
    runs = read(name)["methods"]["ncl_supervised"]
    single = comparison.spread([tables.mean_expert(run["experts"])["accuracy"] for run in runs])
    ensemble = comparison.spread([run["ensemble"]["accuracy"] for run in runs])
    return f"{single} / {ensemble}, {runs[0]['epoch']} epochs"


# kind: (results) -> Markdown
KINDS = {
    "about": about,
    "groups": groups,
    "flipped": flipped_labels.table,
    "trust_sets": trust_backtest.sets_table,
    "trust_mixes": trust_backtest.mixes_table,
    "trust_selective": trust_backtest.selective_table,
    "features": features,
    "methods": lambda results: ablation.table(results["methods"]),
    "run": run,
    "curve": curve,
    "single": single,
    "distilled": distilled,
    "published": published,
    "step": step_report.table,
    "against": lambda results: step_report.table(results, AGAINST),
    "moved": scaling.moved,
    "expected": scaling.expected,
    "feed": feeding.table,
    "remedies": short_schedules.remedies_table,
    "rates": short_schedules.rates_table,
    "origin": evidence_tables.about,
    "accuracy": evidence_tables.accuracy,
    "adapters": lambda results: evidence_tables.accuracy(results, "heads"),
    "calibration": evidence_tables.calibration,
    "sets": evidence_tables.prediction_sets,
    "diverse": evidence_tables.diverse,
}
SEVERAL = {
    "parts": evidence_tables.parts,
    "held_out": evidence_tables.held_out,
}  # kind: (results by data set) -> Markdown


def make(kind: str, name: str, rows: str | None) -> str:
    """One table."""
    if kind in SEVERAL:
        return SEVERAL[kind]({row: read(f"{name}{row}") for row in (rows or "").split(",")})
    results = read(name)
    if rows:
        results = results | {"methods": {method: results["methods"][method] for method in rows.split(",")}}
    return KINDS[kind](results)


def made_again(text: str) -> str:
    """A page with its tables made from the results."""
    return TABLE.sub(lambda found: f"{found[1]}{make(*found.groups()[1:4])}\n{found[5]}", text)


def evaluations(path: pathlib.Path) -> list:
    """Epoch and accuracy of the ensemble, of each evaluation that a log holds."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [[r["epoch"], r["ensemble"]["accuracy"]] for r in records if r["kind"] == "evaluation"]


def collect(directory: pathlib.Path, name: str, **origin: str) -> None:
    """Keeps what the runs of a comparison ended with."""
    methods: dict[str, list[dict]] = {}
    for path in sorted(directory.glob("*-*/results.json")):
        results = json.loads(path.read_text())
        kept = {key: results[key] for key in KEPT} | {key: results[key] for key in KEPT_IF_THERE if key in results}
        kept |= {"curve": evaluations(path.parent / "metrics.jsonl")}
        methods.setdefault(path.parent.name.rpartition("-")[0], []).append(kept)
    names = [*filter(methods.get, METHODS), *sorted(methods.keys() - METHODS.keys())]
    ordered = {name: methods[name] for name in names}
    (RESULTS / "runs" / f"{name}.json").write_text(json.dumps({**origin, "methods": ordered}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=pathlib.Path, metavar="DIR")
    for field in ("name", *ABOUT):
        parser.add_argument(f"--{field}", default="")
    args = parser.parse_args()
    if args.collect:
        collect(args.collect, args.name, **{field: getattr(args, field) for field in ABOUT})
    for page in PAGES:
        page.write_text(made_again(page.read_text()))


if __name__ == "__main__":
    main()
