"""NCL on images that lists name: a path and a label a line, CSV, or JSON (docs/data.md).

    ncl-jax train --config=list:dir=DIR,train=train.txt,test=test.txt[,val=val.txt,classes=names.txt,epochs=30]

What is chosen for the images is printed when the run starts; any of it can be changed with --config.FIELD=VALUE.
"""

from ncl_jax.config import recipes


def get_config(arguments: str | None = None):
    """Arguments: `dir` that the paths start from, `train`, `val`, `test`, `classes`, and those of configs/folder.py."""
    return recipes.listed(arguments)
