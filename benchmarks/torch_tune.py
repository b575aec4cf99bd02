"""Which way to run is PyTorch's fastest for a step of step_time.py on this machine?

    python benchmarks/torch_tune.py --torch=PYTHON --methods=ncl_supervised --tuned=FILE [--torch_compile] [...]

Takes step_time.py's arguments. Every environment (freed memory kept or not; idle threads that wait as they come,
actively or passively) is a process of its own, in which the step runs in both memory layouts and, with --torch_compile,
compiled, after one step to warm up; the least of two readings counts. The fastest goes to FILE, with what each took.
"""

import json
import sys
import tempfile

import step_time
from torch_peer import Peer, environments

from ncl_jax.runtime import startup


def main():
    parser = step_time.make_parser(__doc__)
    parser.add_argument("--torch_compile", action="store_true", help="try compiled steps, too")
    args = parser.parse_args()
    startup.prepare()
    args.steps = args.steps or 1
    forms = ["channels_last", "contiguous"]
    forms += [f"{form}, compiled" for form in forms] if args.torch_compile else []
    (method,), data = args.methods, step_time.make_data(args.image_size)
    config = step_time.make_config(args, method, step_time.variants(args)[0])
    batches = step_time.ready_batches(config, data)
    spec = step_time.torch_spec(args, args.precisions[0], data) | {"forms": forms}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, environment in environments().items():
            peer = Peer(args.torch, environment, folder)
            _, answer = peer.make(method, config, batches, spec)
            peer.close()
            seconds |= {(name, form): value for form, value in answer["tuning_seconds"].items()}
            print(f"{name}: {answer['tuning_seconds']}", file=sys.stderr, flush=True)
    name, form = min(seconds, key=seconds.get)
    best = {"name": name, "environment": environments()[name], "form": form}
    tried = [{"name": name, "form": form, "seconds": value} for (name, form), value in seconds.items()]
    args.tuned.write_text(json.dumps({"torch": answer["torch"], "best": best, "tried": tried}, indent=1) + "\n")
    print(f"{name}, {form}: {seconds[name, form]:.3f} s")


if __name__ == "__main__":
    main()
