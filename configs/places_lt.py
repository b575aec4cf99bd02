"""Places-LT with the authors' recipe (NCL, experiments): ResNet-152, 3 experts, batch 256, 30 epochs.

    python -m ncl_jax.main --config=configs/places_lt.py[:method=ncl,epochs=90,...] --config.data.dir=DIR

DIR holds the images and the lists; docs/data.md says what to download and how to lay it out. The backbones start from
ImageNet's weights, which come from the Hugging Face hub, or from a file: --config.model.pretrained=FILE
(docs/pretrained.md).
"""

from ncl_jax.config import recipes


def get_config(arguments: str | None = None):
    """Arguments: `method` and `semantics` (docs/methods.md), `epochs`, `seed`, `backbone`, `pretrained`, `freeze`,
    `image_size`, `recipe` (docs/transformers.md)."""
    return recipes.large(
        arguments,
        "places_lt",
        "ncl",
        epochs=30,
        data__augment="places",
        model__depth=152,
        model__pretrained="timm/resnet152.tv_in1k",
        loss__num_hard=122,
        contrast__augment="places",
        contrast__queue=65536,
        contrast__dim=1024,
        optim__learning_rate=0.02,
        optim__schedule="step",
        optim__warmup_epochs=5,
        optim__milestones=(10, 20),
    )
