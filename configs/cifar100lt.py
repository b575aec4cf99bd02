"""CIFAR-100-LT with the authors' recipe (NCL, experiments): ResNet-32, 3 experts, batch 64, 400 epochs.

    python -m ncl_jax.main --config=configs/cifar100lt.py[:imbalance=100,method=ncl,epochs=400,...]

backbone=efficientnet_lite0,image_size=128 trains heads on pretrained features instead (docs/features.md).

The data is read from `--config.data.dir` (data/ if not given) or fetched; see docs/data.md.
"""

from ncl_jax.config import cifar_long_tailed


def get_config(arguments: str | None = None):
    """Arguments: `imbalance` (>= 1), `method` and `semantics` (docs/methods.md), `epochs`, `seed`,
    `backbone`, `pretrained`, `freeze`, `image_size`, `recipe`."""
    return cifar_long_tailed(arguments, "cifar100", num_hard=30)  # authors' number of hard categories
