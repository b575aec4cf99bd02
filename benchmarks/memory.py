"""How much memory a training step takes on a TPU, as its compiler says: no TPU is needed.

    pip install 'jax[tpu]' && JAX_PLATFORMS=cpu python benchmarks/memory.py [--topology=v5p:2x2x1] [--devices=1]

Compiles the steps of the large recipes (3 experts, streamed images of 224 pixels, experts by vmap) and prints the bytes
of one device: the arguments (state and batch) and what is temporary. A program that does not fit is reported as the
compiler reports it.
"""

import argparse
import json
import os
import pathlib
import re
import time

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from ncl_jax import build, config_file, sharding
from ncl_jax.data import stream
from ncl_jax.data.pipeline import Facts

BOUNDS = {"v5e:2x4": [2, 4, 1], "v5p:2x2x1": [2, 2, 1], "v4:2x2x1": [2, 2, 1]}
ROWS = [
    ("imagenet_lt", {"precision": "bfloat16"}),
    ("imagenet_lt", {"precision": "bfloat16", "model.remat": True}),
    ("imagenet_lt", {"precision": "bfloat16", "optim.accumulate": 4}),
    ("places_lt", {"precision": "bfloat16", "model.remat": True}),
    ("places_lt", {"precision": "bfloat16", "model.remat": True, "optim.accumulate": 4}),
    ("places_lt", {"precision": "bfloat16"}),
    ("imagenet_lt", {"precision": "float32"}),
]
CLASSES = {"imagenet_lt": 1000, "places_lt": 365}


def place(mesh, spec, tree):
    return jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), tree, spec)


def compiled(name, fields, mesh):
    """The recipe's step, compiled for the mesh."""
    config = config_file.load(name)
    config.update_from_flattened_dict(fields | {"run.strategy": "vmap", "model.pretrained": ""})
    number = CLASSES[name]
    facts = Facts(name, (224, 224, 3), tuple(map(str, range(number))), (100,) * number, "")
    state = jax.eval_shape(lambda: build.initial_state(config, facts))
    places, whole = build.state_places(config, facts, mesh, state), sharding.replicated(mesh)
    views = 2 if config.contrast.weight else 1
    shape = (config.optim.batch_size, views, 224, 224, 3)
    feed = stream.Stream(lambda local: type("", (), {"image_shape": shape[1:]}), shape[0], mesh, threads=1, workers=0)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=whole)
    step = build.train_step(config, facts, mesh, cut=True)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, whole))
    return jitted.lower(place(mesh, places, state), key, feed.like()).compile()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5p:2x2x1", choices=BOUNDS)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, help="a file to which every row is added as a line of JSON")
    args = parser.parse_args()
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=args.topology, chips_per_host_bounds=BOUNDS[args.topology]
    )
    devices = np.array(topology.devices[: args.devices]).reshape(-1, 1)
    mesh = Mesh(devices, ("data", "expert"), axis_types=(AxisType.Auto, AxisType.Auto))
    for name, fields in ROWS:
        began = time.time()
        row = {"recipe": name, **fields, "topology": args.topology, "devices": args.devices}
        try:
            memory = compiled(name, fields, mesh).memory_analysis()
            row |= {"temporary": memory.temp_size_in_bytes, "arguments": memory.argument_size_in_bytes}
        except jax.errors.JaxRuntimeError as error:
            row["does_not_fit"] = (re.findall(r"Used [\d.]+\w? of [\d.]+\w? hbm", str(error)) or [str(error)[:200]])[0]
        row["compilation_seconds"] = round(time.time() - began)
        print(json.dumps(row), flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
