"""ImageNet-LT with the authors' recipe (NCL, experiments): ResNet-50, 3 experts, batch 256, 200 epochs.

    python -m ncl_jax.main --config=configs/imagenet_lt.py[:method=ncl,epochs=90,...] --config.data.dir=DIR

DIR holds the images and the lists; docs/data.md says what to download and how to lay it out.
"""

from ncl_jax.config import recipes


def get_config(arguments: str | None = None):
    """Arguments: `method` and `semantics` (docs/methods.md), `epochs`, `seed`, `backbone`, `pretrained`, `freeze`,
    `image_size`, `recipe` (docs/transformers.md)."""
    return recipes.large(
        arguments,
        "imagenet_lt",
        "ncl_supervised",
        epochs=200,
        loss__num_hard=300,
    )
