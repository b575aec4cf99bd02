"""The command `ncl-jax export`: a run's model as one file.

ncl-jax export --run=runs/quickstart --out=model.stablehlo [--format=stablehlo] [--expert=N] [--step=N|best]
"""

import pathlib
import sys

from ncl_jax import console, startup
from ncl_jax.calibration import TEMPERATURE_HELP
from ncl_jax.exported import description_of
from ncl_jax.exports import FORMATS, export
from ncl_jax.priors import PRIOR_HELP


def main(argv: list[str]) -> None:
    """The command."""
    parser = console.Parser(prog="ncl-jax export", description="Writes a run's model as one file.")
    parser.add_argument("--run", required=True, help="directory of the run")
    parser.add_argument("--out", required=True, help="the file to write")
    formats = f"one of: {', '.join(FORMATS)}; what --out ends in, or stablehlo, if not given"
    parser.add_argument("--format", help=formats)
    parser.add_argument("--prior", help=PRIOR_HELP)
    parser.add_argument("--temperature", help=TEMPERATURE_HELP)
    parser.add_argument("--force", action="store_true", help="write over a file that exists")
    parser.add_argument("--expert", type=int, help="one expert's number; the ensemble, or all experts, if not given")
    parser.add_argument("--step", type=console.step, help=console.STEP_HELP)
    args = parser.parse_args(argv)
    startup.prepare()
    export(args.run, args.out, args.format, args.step, args.expert, args.force, args.prior, args.temperature)
    console.say(f"wrote {args.out} and {description_of(pathlib.Path(args.out))}")


if __name__ == "__main__":
    from ncl_jax import cli

    cli.run("export", sys.argv[1:])
