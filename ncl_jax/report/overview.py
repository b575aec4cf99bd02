"""What a data set holds, as text: its classes, their groups, the sizes of its images."""

import numpy as np

from ncl_jax.data.dataset import Data
from ncl_jax.data.images.examine import Examined
from ncl_jax.data.longtail import count_labels
from ncl_jax.errors import printable

SHOWN = 60  # classes of a table: of more, the largest and the smallest


def class_table(data: Data) -> str:
    """A line for each class, the largest first: its images in every split and its group."""
    counts = {name: count_labels(split.labels, data.facts.num_classes) for name, split in data.splits().items()}
    groups = next(iter(data.facts.groups().values()))
    order = np.argsort(-counts["train"], kind="stable")
    lines = ["".join([f"{'class':<32}", *(f"{name:>9}" for name in counts), "  group"])]
    for label in order:
        group = next(name for name, mask in groups.items() if mask[label])
        cells = "".join(f"{numbers[label]:>9,}" for numbers in counts.values())
        lines.append(f"{printable(data.facts.class_names[label])[:30]:<32}{cells}  {group}")
    if len(order) > SHOWN:
        left_out = len(order) - SHOWN
        lines[1 + SHOWN // 2 : -SHOWN // 2] = [f"... {left_out} classes between, see the picture ..."]
    totals = "".join(f"{numbers.sum():>9,}" for numbers in counts.values())
    return "\n".join([*lines, f"{f'all {len(order):,} classes':<32}{totals}"])


def summary(data: Data, examined: dict[str, Examined]) -> str:
    """The imbalance factor, the groups of classes and the sizes of the images, a line each."""
    counts = data.facts.class_counts
    groups = {name: int(mask.sum()) for name, mask in next(iter(data.facts.groups().values())).items()}
    sizes = np.concatenate([part.sizes for part in examined.values()])
    sizes = sizes[sizes.min(1) > 0]
    low, middle, high = np.quantile(sizes, (0, 0.5, 1), axis=0).astype(int) if len(sizes) else np.zeros((3, 2), int)
    return (
        f"imbalance factor {max(counts) / min(counts):.4g} ({max(counts):,} to {min(counts):,} training images)\n"
        f"{groups['many']} many-shot classes (more than 100 training images), {groups['medium']} medium-shot (20 to "
        f"100), {groups['few']} few-shot (fewer than 20)\n"
        f"image sizes in pixels: width {low[1]} to {high[1]}, median {middle[1]}; height {low[0]} to {high[0]}, median "
        f"{middle[0]}"
    )
