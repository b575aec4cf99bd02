"""NCL on a folder of your own images, a folder for each class (docs/data.md).

    ncl-jax train --config=folder:dir=DIR[,image_size=64,epochs=30,method=ncl,imbalance=0,seed=0]

Where it is not clear which folders are the splits, train=FOLDER,val=FOLDER,test=FOLDER name them; layout=group/class
says that cameras, sites or patients lie above the classes, and group_by=folder or a regular expression keeps groups of
images whole in automatic splits.

Photographs take pretrained features where the weights are installed (docs/features.md); backbone=NAME, pretrained=WHAT
and freeze=N choose others, recipe=lift adapters in a frozen transformer (docs/transformers.md).

What is chosen for the images is printed when the run starts; any of it can be changed with --config.FIELD=VALUE.
"""

from ncl_jax.config import recipes


def get_config(arguments: str | None = None):
    """Arguments: `dir`, `train`, `val`, `test`, `layout`, `group_by`, `image_size`, `imbalance`, `method`, `semantics`,
    `epochs`, `seed`, `backbone`, `pretrained`, `freeze`, `recipe`."""
    return recipes.folder(arguments)
