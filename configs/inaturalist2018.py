"""iNaturalist 2018 with the authors' recipe (NCL, experiments): ResNet-50, 3 experts, batch 512, 400 epochs.

    python -m ncl_jax.main --config=configs/inaturalist2018.py[:method=ncl,epochs=90,...] --config.data.dir=DIR

DIR holds the images and the lists; docs/data.md says what to download and how to lay it out.
"""

from ncl_jax.config import recipes


def get_config(arguments: str | None = None):
    """Arguments: `method` and `semantics` (docs/methods.md), `epochs`, `seed`, `backbone`, `pretrained`, `freeze`,
    `image_size`, `recipe` (docs/transformers.md)."""
    return recipes.large(
        arguments,
        "inaturalist2018",
        "ncl_supervised",
        epochs=400,
        data__mean=(0.466, 0.471, 0.380),
        data__std=(0.195, 0.194, 0.192),
        model__cosine_scale=32.0,
        loss__num_hard=2442,
        optim__batch_size=512,
    )
