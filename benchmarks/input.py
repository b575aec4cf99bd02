"""How fast are images decoded, cropped and resized, and what of that does the feed of a run keep?

    python benchmarks/input.py --dir=FOLDER [--images=480] [--repeats=5] [--out=FILE]

FOLDER holds image files at any depth, for example photographs. Everything is measured in turns, repeat by repeat, each
for all decoders that are installed:

- decode: an image file to pixels, nothing else;
- cut: decode, the random crop of the view "imagenet" and its resize to 224 pixels, in plain threads, one for each core;
- feed: batches of 64 from a run's streamed feed, by threads and by worker processes;
- stall: the share of time that steps wait for the feed, if a step takes as long as 0.8, 1 or 1.25 times what the cores
  need to cut its batch (the steps sleep, as they do here while an accelerator computes).

Images a second are medians over the repeats; `kept` is the feed's rate over that of `cut`, repeat by repeat. Images a
CPU second count the time of all of a process's threads; worker processes are not in it.
"""

import argparse
import functools
import json
import pathlib
import platform
import resource
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ncl_jax.data.augment import views
from ncl_jax.data.feeds import stream
from ncl_jax.data.images import decode as decoding
from ncl_jax.data.images import parallel
from ncl_jax.data.sources import folder
from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Split
from ncl_jax.runtime.devices import make_mesh
from ncl_jax.storage import records

SIZE, RESIZE, BATCH = 224, 256, 64
STEPS = (0.8, 1.0, 1.25)
RATES = ("images_per_second", "per_cpu_second")
DECODERS = {"simplejpeg": decoding.simplejpeg, "pillow": None}


def make_split(place, count):
    """`count` images, the files of a folder over and over."""
    paths = sorted(path for path, _ in folder.image_files(place))
    names = np.resize(np.array([str(pathlib.Path(path).relative_to(place)) for path in paths], object), count)
    return Split(Files(place, names, np.zeros(count, np.int64)), np.zeros(count, np.int32)), len(paths)


def timed(function, count):
    """Images a second and images a CPU second."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def decode(split):
    with ThreadPoolExecutor(parallel.cores()) as pool:
        list(pool.map(lambda row: parallel.decoded(split.images, row).shape, range(len(split))))


def cut(split):
    crop, out = views.host_part("imagenet", SIZE), np.zeros((len(split), 1, SIZE, SIZE, 3), np.uint8)
    whole = stream.Cut([crop], RESIZE, SIZE)

    def one(row):
        whole(parallel.decoded(split.images, row), np.random.default_rng(row), out[row])

    with ThreadPoolExecutor(parallel.cores()) as pool:
        list(pool.map(one, range(len(split))))


def make_batches(split, local):
    order = stream.Shuffled(0, len(split), BATCH)
    parts = stream.Cut([views.host_part("imagenet", SIZE)], RESIZE, SIZE)
    return stream.Batches(split, order, parts, 0, BATCH, local)


def feed(split, threads, workers, step=0.0):
    """Takes as many batches as the images fill, after the first few; returns what `timed` does and the share waited."""
    source = stream.Stream(
        functools.partial(make_batches, split), BATCH, make_mesh(1), threads=threads, workers=workers
    )
    batches, count = source.batches(0), len(split) // BATCH
    for _ in range(threads + 1 + 2 * workers):  # what was read ahead before the clock runs
        next(batches)
    waited, began = source.waited, time.perf_counter()

    def take():
        for _ in range(count):
            next(batches)[0].images.block_until_ready()
            time.sleep(step)

    rates = timed(take, count * BATCH)
    share = (source.waited - waited) / (time.perf_counter() - began)
    source.close()
    return *rates, share


def measure(split, repeats, ways):
    """Every row's figures, [repeats] each."""
    rows: dict[tuple, list] = {}
    for repeat in range(repeats + 1):  # the first warms the caches up
        for name in [name for name in DECODERS if name == "pillow" or DECODERS[name]]:
            decoding.simplejpeg = DECODERS[name]
            found = {("decode", name): timed(lambda: decode(split), len(split))}
            found["cut", name] = timed(lambda: cut(split), len(split))
            for threads, workers in ways if name == next(iter(DECODERS)) else ways[:1]:
                found[f"feed, {threads} threads, {workers} workers", name] = feed(split, threads, workers)[:2]
            for factor in STEPS:
                step = factor * BATCH / found["cut", name][0]
                found[f"stall, step of {factor} x cut", name] = feed(split, *ways[0], step)
            for key, figures in found.items() if repeat else ():
                rows.setdefault(key, []).append(figures)
    return rows


def memory(split, threads, steps):
    """Shows the process's resident memory ten times while a feed is read."""
    source = stream.Stream(functools.partial(make_batches, split), BATCH, make_mesh(1), threads=threads, workers=0)
    for step, (batch, _) in enumerate(source.batches(0), 1):
        batch.images.block_until_ready()
        if step % (steps // 10) == 0:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            print(f"step {step}: {pages * resource.getpagesize() / 2**20:.0f} MiB", flush=True)
        if step == steps:
            return source.close()


def report(rows):
    """The figures of every row, as dictionaries."""
    found = []
    for (what, decoder), figures in rows.items():
        row = {"what": what, "decoder": decoder}
        if what.startswith("stall"):
            row["waited"] = statistics.median(share for _, _, share in figures)
        else:
            row["images_per_second"] = statistics.median(rate for rate, _ in figures)
            workers = "workers" in what and not what.endswith(" 0 workers")
            row["per_cpu_second"] = None if workers else statistics.median(rate for _, rate in figures)
        if what.startswith("feed"):
            pairs = zip(figures, rows["cut", decoder], strict=True)
            row["kept"] = statistics.median(ours[0] / bare[0] for ours, bare in pairs)
        found.append(row)
    return found


def table(results):
    """Markdown: images a second, and images a CPU second, of every way by every decoder."""
    rows = [row for row in results["rows"] if "images_per_second" in row]
    figures = {(row["what"], row["decoder"]): row for row in rows}
    decoders = list(dict.fromkeys(row["decoder"] for row in rows))
    lines = [f"| images per second | {' | '.join(f'{name} | per CPU second' for name in decoders)} |"]
    lines.append("|---" * (1 + 2 * len(decoders)) + "|")
    for what in dict.fromkeys(row["what"] for row in rows):
        values = [figures.get((what, name), {}).get(key) for name in decoders for key in RATES]
        shown = what.replace("feed", "data loader")
        lines.append(f"| {' | '.join([shown] + ['' if value is None else f'{value:.0f}' for value in values])} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="folder of image files")
    parser.add_argument("--images", type=int, default=480, help="images in each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory_steps", type=int, help="only show the memory over so many batches of the feed")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for the figures")
    args = parser.parse_args()
    split, files = make_split(args.dir, args.images)
    cores = parallel.cores()
    if args.memory_steps:
        return memory(split, cores, args.memory_steps)
    ways = [(cores, 0), (1, 0), (2 * cores, 0), (1, cores), (1, 1)]
    rows = report(measure(split, args.repeats, ways))
    about = {"processor": records.processor(), "cores": cores, "python": platform.python_version(), "files": files,
             "images": args.images, "repeats": args.repeats, "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    print(json.dumps(about))
    for row in rows:
        figures = [f"{name} {value:.3g}" for name, value in row.items() if isinstance(value, float)]
        print(f"{row['what']:<32}{row['decoder']:<12}{', '.join(figures)}")
    if args.out:
        args.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
