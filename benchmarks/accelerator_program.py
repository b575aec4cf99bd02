"""What the program of a run costs on an accelerator, read from the compiled program: no accelerator is needed.

    pip install 'jax[tpu]'                                              # for a TPU
    pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12   # for a GPU; of jaxlib's version
    python benchmarks/accelerator_program.py --target=v5e:1x1 [--config=cifar100lt:method=ncl_supervised]
        [--out=FILE.jsonl] [FIELD=VALUE ...]

Compiles the program that `ncl-jax train` would run on the target: the configuration's network, batch, feed and steps
per call, from shapes alone. Prints and stores what its text says (compiled.py): the compiler's estimated cycles (TPU)
or the kernels by kind (GPU), by part of a step; bytes, memory, collectives; and a floor from the devices' published
figures. Estimates are the compiler's, not times. `--target=here` compiles for the devices that there are, and times.

--expert_devices spreads the experts; FIELD=VALUE are fields of the configuration, as `precision=bfloat16`.
"""

import argparse
import functools
import json
import pathlib
import resource
import statistics
import sys
import time

import targets

TARGET = next(
    (targets.parse(a.partition("=")[2]) for a in sys.argv if a.startswith("--target=")), targets.parse("here")
)
targets.set_variables(TARGET)

import compiled  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, Mesh  # noqa: E402

from ncl_jax import models  # noqa: E402
from ncl_jax.config import build  # noqa: E402
from ncl_jax.config import files as config_files  # noqa: E402
from ncl_jax.config import plan as plans  # noqa: E402
from ncl_jax.data import longtail  # noqa: E402
from ncl_jax.data.dataset import Facts  # noqa: E402
from ncl_jax.data.feeds import stream  # noqa: E402
from ncl_jax.data.feeds.resident import Resident  # noqa: E402
from ncl_jax.runs import setup  # noqa: E402
from ncl_jax.runtime import startup  # noqa: E402
from ncl_jax.runtime.devices import replicated  # noqa: E402
from ncl_jax.training import steps  # noqa: E402

# name of the data: class counts
COUNTS = {
    "cifar100": lambda config: longtail.class_counts(500, config.data.imbalance, 100),
    "cifar10": lambda config: longtail.class_counts(5000, config.data.imbalance, 10),
    "imagenet_lt": lambda config: longtail.class_counts(1280, 256, 1000),
    "places_lt": lambda config: longtail.class_counts(4980, 996, 365),
    "inaturalist2018": lambda config: longtail.class_counts(1000, 500, 8142),
}  # the large ones' totals are not exactly the published ones, which no program depends on
CALLS = 5  # timed


def make_mesh(expert_devices):
    """All devices of the target, in the order that the compiler lists them."""
    devices = np.array(targets.devices(TARGET)).reshape(-1, expert_devices)
    return Mesh(devices, ("data", "expert"), axis_types=(AxisType.Auto, AxisType.Auto))


def make_config(name, fields):
    """A configuration by its name, with fields changed."""
    config = config_files.load(name)
    for field in fields:
        path, _, value = field.partition("=")
        kind = type(functools.reduce(lambda node, part: node[part], path.split("."), config))
        config.update_from_flattened_dict({path: value == "True" if kind is bool else kind(value)})
    config.model.pretrained = ""
    return config


def make_facts(config):
    """What a run would know of the data."""
    counts = COUNTS[config.data.name](config)
    size = config.data.image_size or 32
    return Facts(config.data.name, (size, size, 3), tuple(map(str, range(len(counts)))), tuple(map(int, counts)), "")


def make_feed(config, facts, mesh):
    """The run's feed, of images that are not there."""
    if facts.image_shape[0] <= 64:
        images = np.broadcast_to(np.uint8(0), (facts.num_train, *facts.image_shape))
        return Resident(images, np.zeros(facts.num_train, np.int32), None, config.optim.batch_size, mesh)
    views = config.loss.copies + len(build.view_names(config)) - 1

    class Shapes:
        image_shape = (views, *facts.image_shape)

    return stream.Stream(lambda rows: Shapes, config.optim.batch_size, mesh, threads=1, workers=0)


def arguments(plan, train_step, feed):
    """Shapes and places of what a call of the program takes beside the feed's source: state, history, key; count; and,
    of adapters, the frozen backbone's variables."""
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    places, whole = plans.state_places(plan, state), replicated(plan.mesh)
    place = lambda leaf, where=whole: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # noqa: E731
    key = place(jax.eval_shape(lambda: jax.random.key(0)))
    frozen = None
    if plan.lower is not None:
        frozen = jax.tree.map(place, models.shapes_of(plan.trunk, plan.facts.image_shape)[1])
    given, length = setup.given(frozen), plan.steps_per_epoch
    history = steps.zero_history(train_step, feed.take, state, key, feed.like(), length, *given)
    count = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
    return (jax.tree.map(place, state, places), jax.tree.map(place, history), key), count, given


def compile_program(config, facts, mesh):
    """The program, the feed, its other arguments, and the seconds that compiling took."""
    feed = make_feed(config, facts, mesh)
    plan = build.make_training_plan(config, facts, mesh)
    train_step = plans.train_step(plan, cut=feed.cut)
    args, count, given = arguments(plan, train_step, feed)
    began = time.perf_counter()
    program = setup.lower_step(train_step, feed, plan.steps_per_call, args, count, *given).compile()
    return program, feed, (*args, *given), time.perf_counter() - began


def measure(program, config, mesh, seconds):
    """A record of what the program says."""
    read, memory, cost = compiled.Program(program.as_text()), program.memory_analysis(), program.cost_analysis() or {}
    step = read.step
    record = {
        "target": TARGET.name, "mesh": list(mesh.devices.shape), "strategy": build.strategy(config, mesh),
        "precision": config.precision, "compile_seconds": round(seconds, 1),
        "code_bytes": memory.generated_code_size_in_bytes, "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes, "flops": cost.get("flops", 0), "moved_bytes": read.moved(step),
        "collectives": read.collectives(step),
        "unchanging": [[op.name, op.cycles] for op in read.unchanging(step) if op.cycles > 1000],
    }  # fmt: skip
    if TARGET.is_tpu:
        record |= {"unestimated": read.unestimated(step)}
        record |= {"cycles": read.cycles(step), "cycles_outside": sum(read.cycles(read.entry).values())}
        record["cycles_outside"] -= sum(record["cycles"].values())
    else:
        record |= {"kernels": read.kernels(step), "kernel_parts": read.kernel_parts(step)}
    return record | floor(record)


def floor(record):
    """The seconds that arithmetic and bytes take at the devices' published rates; cycles where those are estimated."""
    device = targets.DEVICES.get(TARGET.kind)
    if device is None:
        return {}
    bound = {"arithmetic": record["flops"] / device.flops, "memory": record["moved_bytes"] / device.bandwidth}
    return {"floor_seconds": bound, "floor_cycles": {name: round(s * device.clock) for name, s in bound.items()}}


def timed(program, config, facts, mesh, feed, args):
    """Median seconds of a step, on arrays of zeros."""
    zeros = lambda a: jax.device_put(np.zeros(a.shape, a.dtype), a.sharding)  # noqa: E731
    history, source = jax.tree.map(zeros, (args[1], feed.like()))
    key = jax.device_put(plans.keys(0).step, args[2].sharding)
    places = jax.tree.map(lambda leaf: leaf.sharding, args[0])
    plan = build.make_training_plan(config, facts, mesh)
    state = startup.run_once(lambda: plans.initial_state(plan), places)
    per_call = 1 if feed.cut else plan.steps_per_call
    count, seconds = jax.device_put(np.int32(per_call), key.sharding), []
    frozen = [jax.tree.map(zeros, tree) for tree in args[3:]]
    for _ in range(CALLS + 1):
        began = time.perf_counter()
        state, history, _ = program(state, history, key, source, count, *frozen)
        jax.block_until_ready(state)
        seconds.append((time.perf_counter() - began) / per_call)
    return times(seconds) | {"steps_per_call": per_call}


def times(seconds):
    """Of the calls after the first one; and the most memory that the process has had, the compiler's included."""
    found = {"step_seconds": statistics.median(seconds[1:]), "range": [min(seconds[1:]), max(seconds[1:])]}
    return found | {"calls": len(seconds) - 1, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def say(record):
    """The record as lines."""
    what = "estimated cycles" if "cycles" in record else "kernels and copies"
    total = sum(record.get("cycles", record.get("kernels", {})).values())
    run = f"{record['config']} on {record['target']}, {record['strategy']}, {record['precision']}"
    print(f"{run}: {total:,} {what} a step, compiled in {record['compile_seconds']} s")
    for name in ("cycles", "kernels", "kernel_parts", "floor_cycles", "collectives", "unestimated"):
        if values := record.get(name):
            print(f"  {name}: {', '.join(f'{key} {value}' for key, value in values.items())}")
    sizes = ("code_bytes", "temporary_bytes", "argument_bytes", "moved_bytes")
    print("  MiB: " + ", ".join(f"{name.removesuffix('_bytes')} {record[name] / 2**20:.0f}" for name in sizes))
    if "step_seconds" in record:
        peak = record["peak_bytes"] / 2**20
        print(f"  {1e3 * record['step_seconds']:.2f} ms a step, at most {peak:.0f} MiB of the process")
    if record["unchanging"]:
        print(f"  the same in every step: {record['unchanging'][:8]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="here")
    parser.add_argument("--config", default="cifar100lt:method=ncl_supervised")
    parser.add_argument("--expert_devices", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, help="a file to which the record is added, a line of JSON")
    parser.add_argument("--text", type=pathlib.Path, help="a file for the compiled program's text")
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    args = parser.parse_args()
    mesh, config = make_mesh(args.expert_devices), make_config(args.config, args.fields)
    facts = make_facts(config)
    program, feed, shapes, seconds = compile_program(config, facts, mesh)
    if args.text:
        args.text.write_text(program.as_text())
    record = {"config": args.config, "fields": args.fields, **measure(program, config, mesh, seconds)}
    if TARGET.kind == "here":
        record |= timed(program, config, facts, mesh, feed, shapes)
    say(record)
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(record | {"jax": jax.__version__}) + "\n")


if __name__ == "__main__":
    main()
