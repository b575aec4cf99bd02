"""Whether figures of several runs can be compared: on the same test images, whatever the runs were trained on."""

from collections.abc import Sequence

import numpy as np

from ncl_jax.errors import ConfigError
from ncl_jax.report.content import RunContent

NAMED = 3  # classes that a sentence names


def check_same_test_images(runs: Sequence[RunContent]) -> None:
    """Raises ConfigError where runs were not evaluated on the same images with the same labels."""
    for run in runs[1:]:
        if differs := different_tests(runs[0], run):
            raise ConfigError(
                f"{runs[0].name} and {run.name} cannot be compared: {differs}. Figures are comparable on the same test "
                "images alone; make a report of each"
            )


def different_tests(one: RunContent, other: RunContent) -> str:
    """In words, how two runs' test images differ; empty where they are the same, as far as that is known."""
    for name, words in (("dataset", "the dataset"), ("split", "the split that is evaluated")):
        if one.results.get(name) != other.results.get(name):
            return f"{words} is {one.results.get(name)} in one and {other.results.get(name)} in the other"
    if one.facts.class_names != other.facts.class_names:
        return f"the classes differ ({_classes(one, other)})"
    counts = [run.results.get("test_counts") or [] for run in (one, other)]
    if all(counts) and sum(counts[0]) != sum(counts[1]):
        return f"one has {sum(counts[0]):,} test images, the other {sum(counts[1]):,}"
    if all(counts) and counts[0] != counts[1]:
        return "their classes have different numbers of test images"
    return _different_images(one, other)


def _classes(one: RunContent, other: RunContent) -> str:
    names = [set(run.facts.class_names) for run in (one, other)]
    alone = sorted(names[0] ^ names[1])
    more = f" and {len(alone) - NAMED} more" if len(alone) > NAMED else ""
    return f"{', '.join(alone[:NAMED])}{more} in one of them alone" if alone else "their order"


def _different_images(one: RunContent, other: RunContent) -> str:
    if one.names.tested and other.names.tested and list(one.names.tested) != list(other.names.tested):
        number = len(set(one.names.tested) - set(other.names.tested))
        return f"{number:,} test images are other files" if number else "their test images are in another order"
    if one.predictions is not None and other.predictions is not None:
        number = int((one.predictions.labels != other.predictions.labels).sum())
        return f"{number:,} test images have other labels" if number else ""
    if one.results.get("rows_checksum") != other.results.get("rows_checksum"):
        return "they were trained on different images, and whether their test images are the same is not known"
    return ""


def different_training(runs: Sequence[RunContent]) -> str:
    """A sentence on what differs between the training images of runs; empty where nothing does."""
    first, said = runs[0], []
    for run in runs[1:]:
        if run.results.get("rows_checksum") == first.results.get("rows_checksum"):
            continue
        changed = np.flatnonzero(np.asarray(run.facts.class_counts) != first.facts.class_counts).tolist()
        named = ", ".join(
            f"{first.facts.class_names[c]} {first.facts.class_counts[c]:,} and {run.facts.class_counts[c]:,}"
            for c in changed[:NAMED]
        )
        more = f" and {len(changed) - NAMED} other classes" if len(changed) > NAMED else ""
        sizes = f" ({named}{more})" if changed else ", with as many images in each class"
        said.append(f"{run.name} on {run.facts.num_train:,}{sizes}")
    if not said:
        return ""
    return (
        f"The test images are the same, the training images are not: {first.name} was trained on "
        f"{first.facts.num_train:,}, {'; '.join(said)}. Charts by class size and groups are those of each run."
    )
