"""What one training step moves between devices, read from compiled programs, and what that means on many devices.

    python benchmarks/scaling.py --out=benchmarks/results/scaling.json

Compiles the step of three experts (`ncl_supervised`) on virtual CPU devices for three networks, data parallel, expert
parallel and mixed; sums the bytes of every collective; and estimates the efficiency on more devices (docs/scaling.md).
Nothing is run.
"""

import argparse
import datetime
import json
import math
import pathlib
import time

import compiled
import jax
import numpy as np

from ncl_jax.config import base_config, build, choose_method
from ncl_jax.config import plan as plans
from ncl_jax.data.dataset import Facts
from ncl_jax.data.feeds.feed import Batch
from ncl_jax.runtime.devices import make_mesh, replicated, take_rows

NUM_EXPERTS = 3
# name: backbone, depth, width, image side, classes, images per device
NETWORKS = {
    "ResNet-32": ("cifar_resnet", 32, 16, 32, 100, 64),
    "ResNet-50": ("resnet", 50, 64, 224, 1000, 64),
    "ResNet-152": ("resnet", 152, 64, 224, 1000, 64),
}
MESHES = {"data": (8, 1), "expert": (1, 3), "mixed": (2, 3)}
# Estimates: sustained operations a second, links in bytes a second one way, seconds for each round of a collective.
SUSTAINED = {"ResNet-32": 15e12, "ResNet-50": 100e12, "ResNet-152": 100e12}
LINKS = {"450 GB/s, 5 us": (450e9, 5e-6), "50 GB/s, 10 us": (50e9, 10e-6), "12.5 GB/s, 25 us": (12.5e9, 25e-6)}
DEVICES = (8, 64, 256)


def make_config(network, data):
    """The recipe with the network and 64 images per device along the data axis."""
    backbone, depth, width, _, _, batch = NETWORKS[network]
    config = base_config()
    config.model.backbone, config.model.depth, config.model.width = backbone, depth, width
    config.model.num_experts, config.optim.batch_size, config.data.augment = NUM_EXPERTS, batch * data, "crop_flip"
    choose_method(config, "ncl_supervised")
    return config


def compile_step(network, data, expert):
    """The compiled step, from shapes alone, and the seconds that took."""
    config, (_, _, _, side, classes, _) = make_config(network, data), NETWORKS[network]
    counts = (config.optim.batch_size,) * classes
    facts = Facts("shapes", (side, side, 3), tuple(map(str, range(classes))), counts, "")
    mesh = make_mesh(data, expert)
    plan = build.make_training_plan(config, facts, mesh)
    state = jax.eval_shape(lambda: plans.initial_state(plan))
    places = plans.state_places(plan, state)
    place = lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where)  # noqa: E731
    everywhere = replicated(mesh)
    shapes = (((facts.num_train, side, side, 3), np.uint8), ((facts.num_train,), np.int32))
    key = jax.device_put(plans.keys(0).step, everywhere)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images, rows = (jax.ShapeDtypeStruct(*s, sharding=w) for s, w in zip(shapes, (spread, everywhere), strict=True))
    take, train_step = take_rows(mesh), plans.train_step(plan)

    def gather_and_step(state, key, images, labels, rows):  # as a resident feed does, without the epochs' order
        return train_step(state, key, Batch(take(images, rows)[:, None], labels[rows]))

    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    step = jax.jit(
        gather_and_step, donate_argnums=0, out_shardings=(places, everywhere),
        compiler_options=options,
    )  # fmt: skip
    batch = jax.ShapeDtypeStruct((config.optim.batch_size,), np.int32, sharding=everywhere)
    began = time.perf_counter()
    program = step.lower(jax.tree.map(place, state, places), key, images, rows, batch).compile()
    return program, time.perf_counter() - began


def measure(network, design):
    """A record of one compiled program."""
    program, seconds = compile_step(network, *MESHES[design])
    memory, read = program.memory_analysis(), compiled.Program(program.as_text())
    record = {
        "network": network, "design": design, "mesh": MESHES[design], "images_a_device": NETWORKS[network][-1],
        "collectives": read.collectives(read.entry), "flops": program.cost_analysis()["flops"],
        "state_bytes": memory.alias_size_in_bytes, "temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": seconds,
    }  # fmt: skip
    print(json.dumps(record), flush=True)
    return record


def seconds_of_communication(record, data_devices, link):
    """Ring all-reduces over the data axis, none hidden behind computation: (bytes' part, rounds' part)."""
    bandwidth, latency = LINKS[link]
    reduced = record["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
    moved = 2 * (data_devices - 1) / data_devices * reduced["bytes"] / bandwidth
    return moved, reduced["count"] * latency * math.ceil(math.log2(max(data_devices, 1)))


def estimate(record, devices, link):
    """Share of the step spent computing, on `devices` devices in this design, with `images_a_device` for each of them.

    A device that holds one of E experts sees E times as many images in the same time.
    """
    expert = record["mesh"][1]
    compute = expert * record["flops"] / SUSTAINED[record["network"]]
    return compute / (compute + sum(seconds_of_communication(record, max(1, devices // expert), link)))


def moved(content):
    """What a step moves, as Markdown."""
    lines = [
        "| network | design (data x expert) | all-reduces | MB reduced | other collectives (MB) | TFLOP | state, MB | "
        "temporary, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in content["records"]:
        reduced = r["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
        rest = {k: v for k, v in r["collectives"].items() if k != "all-reduce"}
        other = ", ".join(f"{v['count']} {k} ({v['bytes'] / 1e6:.2f})" for k, v in rest.items()) or "-"
        lines.append(
            f"| {r['network']} | {r['design']} ({r['mesh'][0]} x {r['mesh'][1]}) | {reduced['count']} | "
            f"{reduced['bytes'] / 1e6:.2f} | {other} | {r['flops'] / 1e12:.3f} | {r['state_bytes'] / 1e6:.0f} | "
            f"{r['temporary_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def expected(content):
    """The share of a step that is spent computing, as Markdown."""
    lines = ["| network | design | link | " + " | ".join(f"{n} devices" for n in DEVICES) + " |"]
    lines.append("|---|---|---|" + "---|" * len(DEVICES))
    for r in content["records"]:
        for link in LINKS if r["design"] != "expert" else ():
            cells = " | ".join(f"{100 * estimate(r, n, link):.0f} %" for n in DEVICES)
            lines.append(f"| {r['network']} | {r['design']} | {link} | {cells} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--designs", default=",".join(MESHES))
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    records = [measure(n, d) for n in args.networks.split(",") for d in args.designs.split(",")]
    content = {"date": datetime.date.today().isoformat(), "jax": jax.__version__, "records": records}
    if args.out:
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    print(moved(content), expected(content), sep="\n\n")


if __name__ == "__main__":
    main()
