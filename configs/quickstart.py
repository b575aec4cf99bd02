"""NCL on the embedded long-tailed Fashion-MNIST: real images, nothing to download.

    python -m ncl_jax.main --config=configs/quickstart.py[:method=ncl_supervised,epochs=20,seed=0]

backbone=efficientnet_lite0,image_size=128 trains heads on pretrained features instead (docs/features.md).
"""

from ncl_jax.config import base_config, parse_arguments, recipes, scale_schedule


def get_config(arguments: str | None = None):
    """Arguments: `method` and `semantics` (docs/methods.md), `epochs`, `seed`, `backbone`, `pretrained`, `freeze`,
    `image_size`, `recipe`."""
    defaults = {"method": "ncl_supervised", "semantics": "official", "epochs": 20, "seed": 0}
    args = parse_arguments(arguments, **defaults, **recipes.BACKBONE)
    config = base_config()
    config.seed = args.seed
    config.epochs = 20
    config.eval_every = 5
    config.checkpoint_every = 5

    config.data.name = "fashion_mnist_lt"
    config.data.augment = "crop_flip"  # the colour operations of AutoAugment's CIFAR-10 policy mean little here
    config.data.mean = (0.2860, 0.2860, 0.2860)  # of Fashion-MNIST's pixels
    config.data.std = (0.3530, 0.3530, 0.3530)

    config.model.depth = 8
    config.loss.num_hard = 3  # as CIFAR-10 (authors)
    config.loss.ramp_steps = 100
    config.optim.warmup_epochs = 2
    config.optim.milestones = (16, 18)
    config.contrast.queue = 256
    scale_schedule(config, recipes.epochs_of(args, arguments, config.data.name))
    recipes.with_backbone(config, args)
    recipes.with_method(config, args, arguments)
    return config
