"""What the features of a frozen backbone cost on an accelerator, read from the compiled program: none is needed.

    pip install 'jax[tpu]'
    python benchmarks/features_program.py --target=v5e:1x1 --backbone=efficientnet_lite0 [--batch=256]
        [--precision=bfloat16] [--out=FILE.jsonl] [--text=FILE] [FIELD=VALUE ...]

Compiles what `runs.computing.Computing` runs on the target, from shapes alone, and prints and stores what
`accelerator_program.py` does, for one batch of images. FIELD=VALUE are fields of the configuration: what a block of a
transformer takes is the difference between model.depth=3 and model.depth=2.
"""

import argparse
import json
import pathlib
import time

import accelerator_program as programs  # first: it sets what the compilers read from the environment
import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ncl_jax.config import build
from ncl_jax.models.named import NAMED
from ncl_jax.runs import computing


def compile_features(config, mesh, batch):
    """The program from images uint8 `[batch, size, size, 3]` to features, the shapes that it takes, and the seconds
    that compiling took."""
    plan = build.make_training_plan(config, programs.make_facts(config), mesh)
    size = config.data.image_size
    spread, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    images = jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8, sharding=spread)
    zeros = np.zeros((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(lambda: plan.trunk.init(jax.random.key(0), zeros, False))
    variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)
    began = time.perf_counter()
    program = jax.jit(computing.program(plan), out_shardings=spread).lower(variables, images).compile()
    return program, (variables, images), time.perf_counter() - began


def timed(program, shapes):
    """Median seconds of a call, on arrays of zeros."""
    arguments = jax.tree.map(lambda a: jax.device_put(np.zeros(a.shape, a.dtype), a.sharding), shapes)
    seconds = []
    for _ in range(programs.CALLS + 1):
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - began)
    return programs.times(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="v5e:1x1")
    parser.add_argument("--backbone", default="efficientnet_lite0", choices=NAMED)
    parser.add_argument("--batch", type=int, default=computing.LARGE_BATCH)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--out", type=pathlib.Path, help="a file to which the record is added, a line of JSON")
    parser.add_argument("--text", type=pathlib.Path, help="a file for the compiled program's text")
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    args = parser.parse_args()
    name = f"cifar100lt:backbone={args.backbone},image_size={NAMED[args.backbone].image_size}"
    config, mesh = programs.make_config(name, [f"precision={args.precision}", *args.fields]), programs.make_mesh(1)
    program, shapes, seconds = compile_features(config, mesh, args.batch)
    if args.text:
        args.text.write_text(program.as_text())
    about = {"config": name, "fields": args.fields, "batch": args.batch}
    record = about | programs.measure(program, config, mesh, seconds)
    if programs.TARGET.kind == "here":
        record |= timed(program, shapes)
    programs.say(record)
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(record | {"jax": jax.__version__}) + "\n")


if __name__ == "__main__":
    main()
