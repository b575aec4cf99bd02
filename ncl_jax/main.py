"""Trains: `python -m ncl_jax.main --config=configs/quickstart.py` is `ncl-jax train --config=configs/quickstart.py`."""

import sys

from ncl_jax import cli

if __name__ == "__main__":
    cli.run("train", sys.argv[1:])
