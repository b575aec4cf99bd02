"""Writes the tables of README and docs from the results of the runs behind them.

    python tools/make_tables.py                                  # every table again; a test fails where one differs
    python tools/make_tables.py --collect=DIR --name=NAME        # keeps the results of a comparison (ncl-jax ablate)
        --command=... --commit=... --machine=... --date=...

A comparison's results are `benchmarks/results/runs/NAME.json`: by method, what each seed's `results.json` says, and the
command, commit, machine and date. A table stands in a page between `<!-- table KIND NAME -->` and `<!-- end -->`; KIND
is one of `KINDS`, NAME the file that it is made of.
"""

import argparse
import json
import pathlib
import re

from ncl_jax import ablate, report
from ncl_jax.methods import METHODS
from ncl_jax.report import comparison

ROOT = pathlib.Path(__file__).parent.parent
RUNS = ROOT / "benchmarks" / "results" / "runs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEPT = ("ensemble", "experts", "disagreement", "class_counts", "images_per_second", "seconds")
ABOUT = ("command", "commit", "machine", "date")
TABLE = re.compile(r"(<!-- table (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict:
    """A comparison's results."""
    return json.loads((RUNS / f"{name}.json").read_text())


def about(results: dict) -> str:
    """Where a comparison's figures come from, as a line."""
    seconds = sum(run["seconds"] for runs in results["methods"].values() for run in runs)
    number = sum(map(len, results["methods"].values()))
    return (
        f"    {results['command']}\n\n{number} runs, {seconds / 60:.0f} minutes of training steps in all, on "
        f"{results['machine']}, {results['date']}, commit {results['commit']}."
    )


def single(results: dict) -> str:
    """The mean single expert of each method, mean ± standard deviation over seeds in %."""
    keys = ("accuracy", "many", "medium", "few", "ece")
    lines = ["| method | single expert | many | medium | few | ECE |", "|---|---|---|---|---|---|"]
    for method, runs in results["methods"].items():
        experts = [report.mean_expert(run["experts"]) for run in runs]
        cells = [comparison.spread([expert[key] for expert in experts]) for key in keys]
        lines.append(f"| {' | '.join([method, *cells])} |")
    return "\n".join(lines)


# kind: (results) -> Markdown
KINDS = {"about": about, "methods": lambda results: ablate.table(results["methods"]), "single": single}


def made_again(text: str) -> str:
    """A page with its tables made from the results."""
    return TABLE.sub(lambda found: f"{found[1]}{KINDS[found[2]](read(found[3]))}\n{found[4]}", text)


def collect(directory: pathlib.Path, name: str, **origin: str) -> None:
    """Keeps what the runs of a comparison ended with."""
    methods: dict[str, list[dict]] = {}
    for path in sorted(directory.glob("*-*/results.json")):
        results = json.loads(path.read_text())
        methods.setdefault(path.parent.name.rpartition("-")[0], []).append({key: results[key] for key in KEPT})
    RUNS.mkdir(parents=True, exist_ok=True)
    ordered = {method: methods[method] for method in METHODS if method in methods}
    (RUNS / f"{name}.json").write_text(json.dumps({**origin, "methods": ordered}) + "\n")


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
