"""How many photographs of ImageNet's classes does EfficientNet-Lite0 name right with its own classifier?

    python benchmarks/imagenet_answers.py --photos=DIR --classes=FILE [--out=FILE]

DIR holds photographs whose file names begin with the WordNet id of their class, `n01443537_goldfish.JPEG`. FILE lists
the 1,000 ids in the order of the classifier's scores, a line each; timm has it, `timm/data/_info/imagenet_synsets.txt`.
The images are resized and cut as the table `models.named` says, so that this checks the preprocessing, too.
"""

import argparse
import json
import pathlib

import jax
import numpy as np

from ncl_jax.data.augment import views
from ncl_jax.data.images import parallel
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.models.efficientnet import EfficientNetLite
from ncl_jax.models.named import NAMED
from ncl_jax.runs import pretrained
from ncl_jax.weights.names import from_torch
from ncl_jax.weights.read import read_weights

NAME = "efficientnet_lite0"
SUFFIXES = (".jpeg", ".jpg", ".png")


def scores(images: np.ndarray) -> np.ndarray:
    """The scores `[N, 1000]` of images uint8 `[N, 224, 224, 3]`."""
    tensors, about = read_weights(pretrained.find(NAME)), NAMED[NAME]
    variables = {kind: tree["backbone"] for kind, tree in from_torch(tensors).items()}
    network = EfficientNetLite()
    features = jax.jit(lambda x: network.apply(variables, views.normalize(x, about.mean, about.std), False))(images)
    return np.asarray(features) @ tensors["_fc.weight"].T + tensors["_fc.bias"]


def right(found: np.ndarray, labels: np.ndarray, among: int) -> int:
    """Of how many images `[N]` the class is among the largest of the scores `[N, C]`."""
    best = np.argsort(-found, axis=1)[:, :among]
    return int((best == labels[:, None]).any(1).sum())


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, type=pathlib.Path)
    parser.add_argument("--classes", required=True, type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    classes = args.classes.read_text().split()
    if len(classes) != 1000:
        raise SystemExit(f"--classes={args.classes} has {len(classes)} ids, not 1,000")
    files = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"--photos={args.photos} has no photographs: their names end in {', '.join(SUFFIXES)}")
    ids = [path.name[:9] for path in files]
    if unknown := sorted(set(ids) - set(classes)):
        raise SystemExit(f"{args.photos}: files whose names begin with no class of {args.classes}: {unknown[:3]}")
    labels, about = np.array([classes.index(name) for name in ids], np.int32), NAMED[NAME]
    names, sizes = np.array([path.name for path in files]), np.array([path.stat().st_size for path in files])
    split = Split(Files(args.photos, names, sizes), labels)
    images = parallel.fitted(split, about.resize, about.image_size, "decoding the photographs", about.interpolation)
    found = scores(images)
    answer = {"photographs": len(files), "right": right(found, labels, 1), "among five": right(found, labels, 5)}
    text = json.dumps(answer)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
