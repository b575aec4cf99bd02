"""The frozen backbone of a run: one copy in its directory, and the features that it gives, computed once."""

import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors.numpy import load, save

from ncl_jax.config.build import input_shape
from ncl_jax.config.loading import test_feed
from ncl_jax.config.plan import Plan, TrainingPlan, predictor
from ncl_jax.data import dataset
from ncl_jax.data.features.cache import Store
from ncl_jax.data.features.extract import Compute, Identities, Views, extract, identities, own_rows
from ncl_jax.data.features.rows import Rows
from ncl_jax.data.feeds.features import fit
from ncl_jax.data.feeds.feed import Feed
from ncl_jax.data.images.pixels import VERSION
from ncl_jax.data.types import Split
from ncl_jax.errors import CheckpointError, one_line
from ncl_jax.evaluation.predictor import Predictor
from ncl_jax.models import shapes_of
from ncl_jax.models.experts import without_trunk
from ncl_jax.runs import messages
from ncl_jax.runs.computing import Computing, by_kernels
from ncl_jax.runtime import caches, console
from ncl_jax.runtime.files import expand, read_file, write_bytes
from ncl_jax.storage.directory import RunDir
from ncl_jax.weights.torch_names import check_same_structure, nest

MOST_OF_NAMES = 2**22  # bytes of a backbone's file beside its numbers


def write(directory: RunDir, variables: Any) -> None:
    """Keeps the backbone's variables in a run's directory. Raises WriteError, see `RunDir.writing`."""
    flat = {
        "/".join(entry.key for entry in path): np.ascontiguousarray(leaf)  # safetensors writes memory as it lies
        for path, leaf in jax.tree.leaves_with_path(variables)
    }
    with directory.writing():
        write_bytes(directory.backbone, save(flat, {"sha256": digest(variables)}))


def read(directory: RunDir, sha256: str, plan: Plan) -> Any:
    """The backbone's variables `{"params", "batch_stats"}` of a run.

    Raises:
      CheckpointError: the file is damaged, not what the run was trained with, or of another network than the plan's.
      DataError: it cannot be read.
    """
    assert plan.trunk is not None
    _, wanted = shapes_of(plan.trunk, plan.facts.image_shape)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
    content = read_file(directory.backbone, size + MOST_OF_NAMES)
    try:
        variables = nest({tuple(name.split("/")): array for name, array in load(content).items()})
        found = digest(variables)
    except Exception as error:  # of many types: whatever the content provokes
        raise CheckpointError(
            f"{directory.backbone} is damaged ({one_line(error)}): restore it from a backup"
        ) from error
    if found != sha256:
        raise CheckpointError(
            f"{directory.backbone} is not the backbone that the run was trained with: restore it from a backup"
        )
    try:
        check_same_structure(variables, wanted)
    except ValueError as error:
        raise CheckpointError(f"{directory.backbone} is not of the network of {directory.config}: {error}") from error
    return variables


def digest(variables: Any) -> str:
    """What identifies a backbone's variables, whatever file they came from."""
    result = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(variables):
        result.update(f"{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype}".encode())
        result.update(np.ascontiguousarray(leaf).data)
    return result.hexdigest()


def featurize(
    plan: Plan, variables: Any, data: dataset.Data, after_shard: Callable[[], None] = lambda: None
) -> dataset.Data:
    """The run's data with features for images: of training images, the test view and V training views
    `[N, 1 + V, D]` (V is 0 where the experts see images), of the others the test view `[N, 1, D]`; see `features`."""
    compute, test = Computing(plan, variables), data.facts.split
    return data._replace(
        train=of_training(plan, variables, data, compute, after_shard),
        test=features(plan, variables, data.test, test, compute, after_shard=after_shard),
    )


def of_training(
    plan: Plan,
    variables: Any,
    data: dataset.Data,
    compute: Compute | None = None,
    after_shard: Callable[[], None] = lambda: None,
) -> Split:
    """The training images of a run with their features, see `featurize`; `compute`: a `Computing`."""
    compute = compute or Computing(plan, variables)
    return features(plan, variables, data.train, "training", compute, _training_views(plan), after_shard)


def _training_views(plan: Plan) -> Views:
    return Views(plan.loading.cached_views if plan.on_features else 0, plan.loading.flip)


def features(
    plan: Plan,
    variables: Any,
    split: Split,
    name: str,
    compute: Compute,
    views: Views = Views(),  # noqa: B008
    after_shard: Callable[[], None] = lambda: None,
) -> Split:
    """A split with the features of its images, from the cache or computed now: an array float32 `[N, V, D]` or, where
    they do not fit on the devices (`feeds.features.fit`), `Rows` that stay in the cache; `compute`: a `Computing`.

    Raises:
      DataError: see `extract`.
    """
    known = identities(split)
    found: np.ndarray | Rows | None = _kept(plan, variables, known, views)
    if found is None:
        found = _extracted(plan, variables, split, known, name, compute, views, after_shard)
    if isinstance(found, Rows) and fit(found.nbytes, plan.mesh):
        found = found.whole()
    return Split(found, split.labels)


def _extracted(
    plan: Plan,
    variables: Any,
    split: Split,
    known: Identities,
    name: str,
    compute: Compute,
    views: Views,
    after_shard: Callable[[], None],
) -> np.ndarray | Rows:
    """The features of a split; of several processes each computes a part."""
    part = jax.process_index(), jax.process_count()

    def before(images: int) -> None:
        if isinstance(plan, TrainingPlan) and not part[0]:
            console.say_lines(messages.computing_features(images, views.each, name))

    run = functools.partial(
        extract, split, known, _store(plan, variables, views), views, plan.preprocessing, compute,
        text=f"features of the {name} images", after_shard=after_shard,
    )  # fmt: skip
    found = run(part=part, before=before)
    if part[1] == 1:
        return found
    if not fit(found.nbytes, plan.mesh):
        multihost_utils.sync_global_devices("features")  # the others have written theirs
        return run()
    mine = found.whole() * own_rows(len(split), part)[:, None, None]
    return np.asarray(multihost_utils.process_allgather(mine)).sum(0)


def images_to_compute(plan: Plan, variables: Any, data: dataset.Data, numbers: Iterable[int]) -> list[float]:
    """How many images and views this process would send through the backbone for `featurize` with each of these numbers
    of training views: those that are not in the cache."""
    train, test = identities(data.train).keys, identities(data.test).keys
    others = _store(plan, variables, Views()).count_missing(test)
    each = [Views(number, plan.loading.flip) for number in numbers]
    counts = [views.each * _store(plan, variables, views).count_missing(train) + others for views in each]
    return [count / jax.process_count() for count in counts]


def seconds_for_image(plan: Plan, variables: Any, split: Split) -> float:
    """What an image takes to be read and sent through the backbone, by two batches after one that compiles."""
    compute = Computing(plan, variables)
    few = split.take(np.arange(len(split))[: 2 * compute.batch_size])
    known, nothing = identities(few), _store(plan, variables, Views(), kept=False)
    for _ in range(2):
        began = time.perf_counter()
        extract(few, known, nothing, Views(), plan.preprocessing, compute, text="timing features")
    return (time.perf_counter() - began) / len(few)


def test_views(plan: Plan, variables: Any, split: Split, name: str) -> np.ndarray:
    """The features of the test view of a split's images, float32 `[N, D]`; `name`: of the split, as in `Data.splits`.

    Of training images those that are cached with their training views, where they are.
    """
    if name == "train":
        known = _kept(plan, variables, identities(split), _training_views(plan))
        if known is not None:
            return known[:, 0]
    return features(plan, variables, split, name, Computing(plan, variables)).images[:, 0]


def _store(plan: Plan, variables: Any, views: Views, kernels: bool | None = None, kept: bool = True) -> Store:
    """Where features are kept; `kernels`: whether kernels of ours computed them, None: as here; `kept`: False for
    nowhere."""
    assert plan.trunk is not None
    native = by_kernels(plan.trunk) if kernels is None else kernels
    pixels, shape = plan.preprocessing, (views.each, input_shape(plan.trunk, plan.facts)[0])
    about = {
        "dataset": plan.facts.name, "backbone": type(plan.trunk).__name__,
        "fields": [plan.trunk.depth, plan.trunk.width],
        "precision": str(np.dtype(plan.trunk.dtype)), "weights": digest(variables),
        "preprocessing": list(pixels), "pixels": pixels.size, "rule for pixels": VERSION, "views": list(views),
        "views of each image": shape[0], "features": shape[1],
        "computed by": jax.default_backend() + (", kernels" if native else ""),
    }  # fmt: skip
    return Store(cache(plan.loading.cache) if kept else None, about, shape)


def _kept(plan: Plan, variables: Any, known: Identities, views: Views) -> Rows | None:
    """Features that training has kept, for the plan of a trained model, which compiles no kernels: where training had
    kernels, theirs. None where they are not all there, or for training itself."""
    if isinstance(plan, TrainingPlan):
        return None
    for kernels in (True, False):  # which round differently
        store = _store(plan, variables, views, kernels)
        found = store.find(known.keys)
        if len(found.places) == len(set(known.keys)):
            return Rows.of(known.keys, found, store.shape)
    return None


def cache(name: str) -> pathlib.Path | None:
    """The folder of cached features; None where nothing is to be kept."""
    if name == "none":
        return None
    if name:
        return expand("data.cache", name)
    own = caches.folder()
    return own and own / "features"


def are_features(split: Split) -> bool:
    """Whether a split holds features for images."""
    return isinstance(split.images, np.ndarray | Rows) and split.images.dtype == np.float32


def evaluated(
    plan: Plan,
    variables: Any,
    split: Split,
    name: str,
    adjust: np.ndarray | None = None,
    temperature: float = 1.0,
) -> tuple[Predictor, Feed, Any]:
    """What scores the images of a split, its batches, of images or, with a frozen backbone, of their features, and the
    variables that it scores them with. Crops are computed from images each time."""
    if not plan.on_features or plan.crop:
        return predictor(plan, adjust, temperature), test_feed(plan, split, name), variables
    if not are_features(split):
        split = features(plan, variables["trunk"], split, name, Computing(plan, variables["trunk"]))
    model = predictor(plan, adjust, temperature, on_features=True)
    return model, test_feed(plan, split, name), without_trunk(variables)
