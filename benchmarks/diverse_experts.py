"""Are heads on frozen features better together when each sees something else? Judged on held-out training images.

    python benchmarks/diverse_experts.py --name=NAME --config=CONFIG[:ARGUMENTS] --imbalance=IMBALANCE [--most=MOST]
        [--seeds=5] [--config.FIELD=VALUE ...] [--command=... --commit=... --machine=... --date=...]

Three experts learn by the recipe (`config.backbone.ON_FEATURES`) with NCL's individual learning; each row of `WAYS`
makes them differ in one way, once without and once with NCL's distillation between them. CONFIG leaves the data as it
is; they are cut to IMBALANCE here, and judged on what the cut leaves out, at most MOST images of a class. Writes
benchmarks/results/runs/NAME.json after every way, and a repeated command continues; `python tools/make_tables.py` makes
a table of it.
"""

# ruff: noqa: E402

import dataclasses
import functools
import json
import pathlib
import sys
import time
from typing import Any, NamedTuple

from ncl_jax.runtime import memory

memory.keep()  # before there are threads

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evidence import digits, right
from evidence_tables import DISTILLED

from ncl_jax import losses
from ncl_jax.cli.arguments import Parser, add_config, read_config
from ncl_jax.config import build, build_data, recipes
from ncl_jax.config import plan as plans
from ncl_jax.config.plan import TrainingPlan
from ncl_jax.data import dataset, longtail
from ncl_jax.data.features.extract import Views
from ncl_jax.data.types import Split
from ncl_jax.runs import computing, heads, pretrained, trunk
from ncl_jax.runtime import startup

RESULTS = pathlib.Path(__file__).parent / "results" / "runs"
ABOUT = ("command", "commit", "machine", "date")
DISTILLATION = 0.6  # the recipe's weight
LAYERS = {"mean": 1280, "max": 1280, "earlier": 512}  # features of EfficientNet-Lite0, in this order


class Way(NamedTuple):
    """What the experts do not have in common.

    Attributes:
      views: whether each draws its own view of an image.
      share: of the training images of classes larger than the median, the part that each sees; it sees all others.
      columns: the part of the features that each sees, at random.
      layers: the features that each expert sees, names of `LAYERS`; a sum of names for several.
      means: whether their classifiers start at the class means, or at random.
    """

    views: bool = False
    share: float = 1.0
    columns: float = 1.0
    layers: tuple[str, ...] = ("mean", "mean", "mean")
    means: bool = True


EACH = ("mean", "max", "earlier")
WAYS = {
    "the recipe": Way(),
    "random starts": Way(means=False),
    "own views": Way(views=True),
    "own views, 0.7 of the images of large classes": Way(views=True, share=0.7),
    "own views, 0.5 of the images of large classes": Way(views=True, share=0.5),
    "own views, 0.3 of the images of large classes": Way(views=True, share=0.3),
    "own half of the features": Way(views=True, columns=0.5),
    "all: mean and maximum over pixels": Way(layers=("mean+max",) * 3),
    "all: mean, maximum, earlier layers": Way(layers=("mean+max+earlier",) * 3),
    "each its own of mean, maximum, earlier layers": Way(layers=EACH),
    "each its own of them, own views": Way(views=True, layers=EACH),
}


@dataclasses.dataclass(frozen=True)
class Layers:
    """A backbone that gives the features of `LAYERS` `[B, 3072]`: the last convolution's mean over pixels, its maximum,
    and the means of the last two stages before it. Made like a frozen backbone, see `computing.Computing`."""

    network: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def clone(self, **fields: Any) -> "Layers":
        """The same with fields of the network changed."""
        return Layers(self.network.clone(**fields))

    def init_with_output(self, key: jax.Array, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        """Features and variables, as a Flax module's."""
        variables = self.network.init(key, images, train)
        return self.apply(variables, images, train), variables

    def apply(self, variables: Any, images: jax.Array, train: bool) -> jax.Array:
        """Features of images float32 `[B, H, W, 3]`."""
        names = ("layer6_3", "layer7_0", "layer8_bn")
        keep = lambda module, method: module.name in names  # noqa: E731
        mean, found = self.network.apply(variables, images, train, capture_intermediates=keep, mutable="intermediates")
        *earlier, last = (found["intermediates"][name]["__call__"][0] for name in names)
        most = jnp.clip(last, 0, 6).max((1, 2))
        return jnp.concatenate([mean, most, *(x.mean((1, 2)) for x in earlier)], -1)


def parted(data: dataset.Data, imbalance: float, most: int) -> dataset.Data:
    """The data with its training images cut to an imbalance, and others of them, at most so many of a class (0: all),
    for a test set."""
    labels, number = data.train.labels, data.facts.num_classes
    rows = longtail.select(labels, imbalance, number)
    others = np.random.RandomState(0).permutation(np.setdiff1d(np.arange(len(labels)), rows))
    each = [others[labels[others] == label][: most or None] for label in range(number)]
    train, test = data.train.take(rows), data.train.take(np.sort(np.concatenate(each)))
    facts = data.facts._replace(class_counts=tuple(np.bincount(train.labels, minlength=number).tolist()))
    return data._replace(facts=facts, train=train, test=test)


def featurized(plan: TrainingPlan, variables: Any, data: dataset.Data) -> dataset.Data:
    """The data with all features `[N, 1 + V, 3072]` and `[N, 1, 3072]`; each layer's are scaled to a mean length of 1,
    so that those that are seen together count alike."""
    plan = dataclasses.replace(plan, trunk=Layers(plan.trunk), input_shape=(sum(LAYERS.values()),))
    views, compute = Views(plan.loading.cached_views, plan.loading.flip), computing.Computing(plan, variables)
    train = trunk.features(plan, variables, data.train, "training", compute, views)
    test = trunk.features(plan, variables, data.test, "held-out", compute)
    ends = np.cumsum(list(LAYERS.values()))[:-1]
    lengths = [np.linalg.norm(block[:, 0], axis=-1).mean() for block in np.split(train.images, ends, axis=-1)]
    scale = np.repeat(1 / np.array(lengths, np.float32), list(LAYERS.values()))
    return data._replace(train=Split(train.images * scale, train.labels), test=Split(test.images * scale, test.labels))


def columns(way: Way, num_experts: int, seed: int) -> np.ndarray:
    """The features that each expert sees, bool `[E, 3072]`."""
    draws = np.random.default_rng([seed, 1])
    seen = [np.repeat([name in layers.split("+") for name in LAYERS], list(LAYERS.values())) for layers in way.layers]
    drawn = draws.random((num_experts, len(seen[0]))) < way.columns
    return np.stack(seen) & drawn


def bags(way: Way, labels: np.ndarray, counts: np.ndarray, num_experts: int, seed: int) -> np.ndarray:
    """The training images that each expert sees, bool `[E, N]`: all of classes up to the median size."""
    drawn = np.random.default_rng([seed, 2]).random((num_experts, len(labels))) < way.share
    return drawn | (counts[labels] <= np.median(counts))


def loss_of(plan, fields, counts, weight, params, x, labels, seen):
    """NCL's loss of features `[E, B, D]`, each expert's individual learning on the rows that it sees, bool `[E, B]`, by
    the prior of its own images `[E, C]`; distillation on all rows."""
    logits = jax.vmap(lambda p, x: plan.network.apply({"params": p}, x, True)["logits"])(params, x)
    hard = losses.hard_categories(logits[0], labels, fields.num_hard)
    balanced, labels = logits + jnp.log(counts)[:, None], jnp.broadcast_to(labels, seen.shape)
    each = losses.cross_entropy(balanced, labels)
    each += losses.cross_entropy(losses.mask_non_hard(balanced, hard, fields.non_hard), labels)
    loss = (jnp.sum(each * seen, 1) / jnp.maximum(seen.sum(1), 1)).sum()
    if weight:
        common = losses.balanced_logits(logits, np.asarray(plan.facts.class_counts, np.float32))
        pairs = losses.pairwise_kl(common) + losses.pairwise_kl(common, hard, fields.non_hard)
        loss += weight / (len(logits) - 1) * pairs.mean()
    return loss


def scores(config, data: dataset.Data, way: Way, weight: float, seed: int) -> np.ndarray:
    """The scores `[E, N, C]` of the held-out images by experts that are trained now."""
    config = config.copy_and_resolve_references()
    config.seed = seed
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    features, labels, number = data.train.images, data.train.labels, plan.num_experts
    of_expert = columns(way, number, seed)
    used = of_expert.any(0)
    of_expert, features, test = of_expert[:, used], features[..., used], data.test.images[:, 0, used]
    plan = dataclasses.replace(plan, input_shape=(int(used.sum()),))
    counts = np.array(data.facts.class_counts)
    seen = bags(way, labels, counts, number, seed)
    own = np.stack([np.bincount(labels[bag], minlength=len(counts)) for bag in seen]).astype(np.float32)
    state = heads.start(plan, plans.initial_state(plan), features, labels, way.means)
    params = jax.tree.map(lambda leaf: leaf * of_expert[..., None] if leaf.ndim == 3 else leaf, state.params)
    loss = functools.partial(loss_of, plan, config.loss, np.maximum(own, 1e-9), weight)
    held = jax.device_put((features, labels, of_expert, seen))

    @jax.jit
    def epoch(carry, drawn, held):
        features, labels, of_expert, seen = held

        def step(carry, drawn):
            (params, opt), (rows, views) = carry, drawn
            x = features[rows[None], views] * of_expert[:, None]
            updates, opt = plan.optimizer.update(jax.grad(loss)(params, x, labels[rows], seen[:, rows]), opt, params)
            return (optax.apply_updates(params, updates), opt), None

        return jax.lax.scan(step, carry, drawn)[0]

    carry, draws = (params, state.opt_state), np.random.default_rng([seed, 0])
    shape = (plan.steps_per_epoch, plan.batch_size)
    for _ in plan.learning_rates:
        rows = draws.permutation(len(labels))[: np.prod(shape)].reshape(shape)
        views = draws.integers(1, features.shape[1], (shape[0], number, shape[1]))
        carry = epoch(carry, (rows, views if way.views else np.repeat(views[:, :1], number, 1)), held)
    x = test[None] * of_expert[:, None]
    return np.asarray(jax.vmap(lambda p, x: plan.network.apply({"params": p}, x, False)["logits"])(carry[0], x))


def figures(logits: np.ndarray, labels: np.ndarray) -> dict:
    """Means over classes of the ensemble's and of the mean expert's accuracy, and how often two experts differ."""
    ensemble, *experts = (_classes(right(one, labels), labels) for one in [logits.mean(0), *logits])
    top = logits.argmax(-1)
    differ = np.mean([(a != b).mean() for i, a in enumerate(top) for b in top[i + 1 :]])
    return {
        "ensemble": {"classes": ensemble}, "expert": {"classes": float(np.mean(experts))},
        "disagreement": float(differ),
    }  # fmt: skip


def _classes(are_right, labels):
    return float(np.mean([are_right[labels == label].mean() for label in np.unique(labels)]))


def trained(config, data: dataset.Data, way: Way, weight: float, seeds: int) -> dict:
    """One way's runs, and for every held-out image the number of seeds whose ensemble is right."""
    runs, correct = [], 0
    for seed in range(seeds):
        began = time.perf_counter()
        logits = scores(config, data, way, weight, seed)
        runs.append(figures(logits, data.test.labels) | {"seconds": time.perf_counter() - began})
        correct = correct + right(logits.mean(0), data.test.labels)
    return {"runs": runs, "right": digits(correct)}


def main() -> None:
    """Trains what is not there yet."""
    parser = Parser(description=__doc__)
    add_config(parser)
    parser.add_argument("--name", required=True)
    parser.add_argument("--imbalance", type=float, required=True)
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    for field in ABOUT:
        parser.add_argument(f"--{field}", default="")
    args = parser.read(sys.argv[1:])
    startup.prepare()
    config = read_config(args)
    data = parted(build_data.data(config), args.imbalance, args.most)
    recipes.fit_batch(config, len(data.train))
    plan = build.make_training_plan(config, data.facts, build.mesh(config))
    data = featurized(plan, pretrained.load(config, plan).trunk, data)
    path = RESULTS / f"{args.name}.json"
    facts = {"class_counts": list(data.facts.class_counts), "labels": data.test.labels.tolist()}
    results = json.loads(path.read_text()) if path.exists() else facts | {"baselines": {}, "methods": {}}
    results = {field: getattr(args, field) for field in ABOUT} | results
    for name, way in WAYS.items():
        for ending, weight in (("", 0.0), (DISTILLED, DISTILLATION)):
            if name + ending in results["methods"]:
                continue
            found = trained(config, data, way, weight, args.seeds)
            results["methods"][name + ending] = found
            reached = [f"{100 * run['ensemble']['classes']:.2f}" for run in found["runs"]]
            print(name + ending, reached, f"{100 * found['runs'][0]['disagreement']:.1f} % differ", flush=True)
            path.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
