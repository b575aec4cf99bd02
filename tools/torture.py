"""Kills, signals and full disks at random moments of real runs, each then continued and compared with an unbroken run.

    python tools/torture.py [--kills=20] [--signals=10] [--disks=20] [--seed=0] [--out=FILE.json]

Every trial is a small run of the quickstart with self-supervision, so that every part of the state is in use. It must
end with the bits of the run that nothing disturbed: the fingerprint of the final state, every logged figure but times,
and the results. Disks are tmpfs mounts, which need root; without it that part is left out. docs/reliability.md has the
results.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
FIELDS = {
    "epochs": 8, "eval_every": 2, "checkpoint_every": 1, "model.width": 4, "model.num_experts": 2,
    "optim.milestones": "(6,7)", "loss.ramp_steps": 30, "contrast.queue": 64, "run.data_devices": 1,
}  # fmt: skip
TIMES = ("images_per_second", "seconds", "waited")


def start(workdir, cache):
    """Starts a run with its output in a pipe."""
    overrides = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    command = [sys.executable, "-m", "ncl_jax.main", "--config=configs/quickstart.py:method=ncl", *overrides]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, f"--workdir={workdir}"], cwd=ROOT, env=env, **pipes)


def run(workdir, cache):
    """A run to its end: (exit code, output, seconds)."""
    began, process = time.monotonic(), start(workdir, cache)
    output = process.communicate(timeout=600)[0]
    return process.returncode, output, time.monotonic() - began


def content(workdir):
    """What must be equal between two runs."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((workdir / "results.json").read_text())
    for record in (*lines, results):
        for name in TIMES:
            record.pop(name, None)
    step = results["step"]
    fingerprint = json.loads((workdir / "checkpoints" / str(step) / "fingerprint" / "metadata").read_text())
    return {"lines": lines, "results": results, "fingerprint": fingerprint}


def judge(workdir, cache, reference, outputs):
    """Continues a disturbed run to its end; returns what was wrong with it, an empty list if nothing was."""
    code, output, _ = run(workdir, cache)
    wrong = [] if code == 0 else [f"the continued run ended with {code}: {output[-500:]}"]
    if code == 0 and content(workdir) != reference:
        wrong.append("other bits than the unbroken run")
    wrong += ["a traceback" for text in (*outputs, output) if "Traceback" in text]
    return wrong


def disturb(folder, cache, reference, numbers, seconds, chance):
    """One run that gets one to three signals at random moments, each time started again."""
    outputs, codes = [], []
    for _ in range(chance.randint(1, 3)):
        process, number = start(folder, cache), chance.choice(numbers)
        try:
            outputs.append(process.communicate(timeout=chance.uniform(0, seconds))[0])
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            outputs.append(process.communicate(timeout=120)[0])
        codes.append(process.returncode)
    return codes, judge(folder, cache, reference, outputs)


def fill(folder, cache, reference, kilobytes):
    """One run on a disk of a size that it cannot live on, then with room."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        code, output, _ = run(folder / "run", cache)
        finished = (folder / "run" / "results.json").exists()
        wrong = ["results without a good end"] if code and finished else []
        wrong += [f"{output.count('error: ')} error lines"] if code and output.count("error: ") != 1 else []
        subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
        return [code], wrong + judge(folder / "run", cache, reference, [output])
    finally:
        subprocess.run(["umount", folder], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs that get SIGKILL at random moments")
    parser.add_argument("--signals", type=int, default=10, help="runs that get SIGTERM, SIGINT or SIGHUP")
    parser.add_argument("--disks", type=int, default=20, help="sizes of a disk that is too small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    chance, records = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder, cache = pathlib.Path(name), pathlib.Path(name) / "cache"
        for trial in ("first", "reference"):  # the first fills the compilation cache
            code, output, seconds = run(folder / trial, cache)
            assert code == 0, output
        reference = content(folder / "reference")
        need = sum(f.stat().st_size for f in (folder / "reference").rglob("*") if f.is_file()) // 1024
        gentle = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        trials = [("kill", (signal.SIGKILL,))] * args.kills + [("signal", gentle)] * args.signals
        for index, (kind, numbers) in enumerate(trials):
            codes, wrong = disturb(folder / f"{kind}-{index}", cache, reference, numbers, seconds, chance)
            report(records, {"kind": kind, "codes": codes, "wrong": wrong})
        for index in range(args.disks if os.getuid() == 0 else 0):
            size = 16 + need * (index + 1) // (args.disks + 1)
            codes, wrong = fill(folder / f"disk-{index}", cache, reference, size)
            report(records, {"kind": "disk", "kilobytes": size, "codes": codes, "wrong": wrong})
    for kind, group in collections.Counter((r["kind"], not r["wrong"]) for r in records).items():
        print(f"{kind[0]}: {group} {'as the unbroken run' if kind[1] else 'WRONG'}")
    if args.out:
        args.out.write_text(json.dumps(records, indent=1) + "\n")
    sys.exit(any(r["wrong"] for r in records))


def report(records, record):
    """Keeps and shows a trial."""
    records.append(record)
    print(len(records), json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
