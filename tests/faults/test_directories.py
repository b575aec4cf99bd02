"""Faults of a run's directory: files that are cut short, emptied, replaced or gone, and damaged checkpoints.

What a command may still use it uses; what it cannot use it names. Nothing that was there is lost.
"""

import json
import shutil

import harness
import pytest
from harness import STEPS, TRAIN, Fault

import ncl_jax
from ncl_jax.errors import CheckpointError, ConfigError
from ncl_jax.storage.directory import RunDir

AGAIN = (*TRAIN, "--workdir={run}")
EVALUATE = ("evaluate", "--run={run}")
LAST = str(STEPS[-1])


def cut(name):
    """Leaves the first half of a file."""
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


def put(name, content=b""):
    """Gives a file another content."""
    return lambda run: (run / name).write_bytes(content)


def remove(*names):
    """Removes files and folders."""

    def spoil(run):
        for name in names:
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def both(*spoils):
    """Several faults at once."""
    return lambda run: [spoil(run) for spoil in spoils]


def arrays(step, do):
    """Does something to every file that holds a checkpoint's arrays: which holds the weights depends on the moment."""

    def spoil(run):
        for path in list((run / "checkpoints" / step / "state").rglob("d/*")):
            do(path)

    return spoil


def flip(path):
    """Changes a bit of every hundredth byte."""
    data = bytearray(path.read_bytes())
    data[::100] = bytes(byte ^ 1 for byte in data[::100])
    path.write_bytes(data)


def edit(name, **fields):
    """Changes fields of a JSON file."""

    def spoil(run):
        content = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(content | fields))

    return spoil


NOT_A_RUN = r"run/config\.json"
NO_FACTS = r"run/dataset\.json"
FILES = [
    Fault("a finished run again", AGAIN, "finished.*\n.*accuracy", code=0),
    Fault("... without its data", (*AGAIN, "--config.data.dir=/nowhere"), "finished", code=0),
    Fault("another configuration", (*AGAIN, "--config.optim.momentum=0.8"), "optim.momentum: 0.9 .*0.8"),
    Fault("another method", ("train", "--config=quickstart:method=nil", *harness.FIELDS, "--workdir={run}"),
          "loss.balanced: False .*True"),
    Fault("config.json cut", AGAIN, NOT_A_RUN, cut("config.json")),
    Fault("config.json empty", AGAIN, NOT_A_RUN, put("config.json")),
    Fault("config.json a list", AGAIN, NOT_A_RUN, put("config.json", b"[]")),
    Fault("config.json a number", AGAIN, NOT_A_RUN, put("config.json", b"3")),
    Fault("config.json binary", AGAIN, NOT_A_RUN, put("config.json", b"\xff\x00")),
    Fault("config.json a section missing its shape", AGAIN, "optim|config.json",
          edit("config.json", optim=3)),
    Fault("config.json {}", AGAIN, "run.*configuration", put("config.json", b"{}")),
    Fault("config.json deleted, other configuration", (*AGAIN, "--config.optim.momentum=0.8"),
          "optim.momentum: 0.9 .*0.8", remove("config.json", "results.json")),
    Fault("config.json deleted, same configuration", AGAIN, "finished", remove("config.json"), code=0),
    Fault("config.json of a later version", AGAIN, "version 7",
          both(edit("config.json", version=7), remove("results.json"))),
    Fault("dataset.json of other data", AGAIN, "data.*dataset.json",
          both(edit("dataset.json", rows_checksum="0"), remove("results.json"))),
    Fault("dataset.json cut", AGAIN, NO_FACTS, both(cut("dataset.json"), remove("results.json"))),
    Fault("dataset.json a list", AGAIN, NO_FACTS, both(put("dataset.json", b"[]"), remove("results.json"))),
    Fault("dataset.json {}", AGAIN, NO_FACTS, both(put("dataset.json", b"{}"), remove("results.json"))),
    Fault("dataset.json cut, evaluated", EVALUATE, NO_FACTS, cut("dataset.json")),
    Fault("dataset.json deleted, evaluated", EVALUATE, "dataset.json", remove("dataset.json")),
    Fault("config.json deleted, evaluated", EVALUATE, NOT_A_RUN, remove("config.json")),
    Fault("config.json binary, evaluated", EVALUATE, NOT_A_RUN, put("config.json", b"\xff\x00")),
    Fault("config.json with a wrong type, evaluated", EVALUATE, "config.json", edit("config.json", optim=3)),
    Fault("config.json deleted, exported", ("export", "--run={run}", "--out={tmp}/m"), NOT_A_RUN,
          remove("config.json")),
]  # fmt: skip
CHECKPOINTS = [
    Fault("the last one's state cut", EVALUATE, f"checkpoint {LAST} ", arrays(LAST, lambda p:
          p.write_bytes(p.read_bytes()[:100])), code=0),
    Fault("the last one's state deleted", EVALUATE, f"checkpoint {LAST} ",
          arrays(LAST, lambda path: path.unlink()), code=0),
    Fault("bits of the last one's state", EVALUATE, f"checkpoint {LAST} ", arrays(LAST, flip), code=0),
    Fault("the last one's record empty", EVALUATE, f"checkpoint {LAST} ",
          put(f"checkpoints/{LAST}/progress/metadata"), code=0),
    Fault("the last one's record binary", EVALUATE, f"checkpoint {LAST} ",
          put(f"checkpoints/{LAST}/progress/metadata", b"\xff\x00"), code=0),
    Fault("the last one's fingerprint empty", EVALUATE, f"checkpoint {LAST} ",
          put(f"checkpoints/{LAST}/fingerprint/metadata"), code=0),
    Fault("the last one's fingerprint gone", EVALUATE, f"checkpoint {LAST} ",
          remove(f"checkpoints/{LAST}/fingerprint"), code=0),
    Fault("the last one's state folder gone", EVALUATE, f"checkpoint {LAST} ",
          remove(f"checkpoints/{LAST}/state"), code=0),
    Fault("the last one's metadata garbled", EVALUATE, "accuracy", put(f"checkpoints/{LAST}/_CHECKPOINT_METADATA",
          b"{"), code=0),
    Fault("the asked one damaged", (*EVALUATE, f"--step={LAST}"), f"checkpoint {LAST} \\b.*4",
          arrays(LAST, flip)),
    Fault("all damaged", EVALUATE, "2 checkpoints", both(arrays(LAST, flip),
          arrays(str(STEPS[0]), flip))),
    Fault("none", EVALUATE, "no checkpoint", remove(f"checkpoints/{LAST}", f"checkpoints/{STEPS[0]}")),
    Fault("the folder gone", EVALUATE, "no checkpoint", remove("checkpoints")),
    Fault("the folder a file", EVALUATE, "/checkpoints", both(remove("checkpoints"), put("checkpoints"))),
    Fault("the folder a file, trained", AGAIN, "/checkpoints", both(remove("checkpoints", "results.json"),
          put("checkpoints"))),
    Fault("a stray file beside them", EVALUATE, "accuracy", put("checkpoints/notes.txt", b"hello"), code=0),
]  # fmt: skip


@pytest.mark.parametrize("fault", [*FILES, *CHECKPOINTS], ids=lambda fault: fault.name)
def test_a_spoilt_directory_is_one_line_and_loses_nothing(fault, run, tmp_path, capfd):
    harness.attempt(fault, run, tmp_path, capfd)


CONTINUED = {
    "results.json cut": cut("results.json"),
    "results.json empty": put("results.json"),
    "results.json {}": put("results.json", b"{}"),
    "results.json a list": put("results.json", b"[1]"),
    "metrics.jsonl binary": both(remove("results.json"), put("metrics.jsonl", b"\xff\xfe\x00\n\x01")),
    "metrics.jsonl with a number": both(remove("results.json"), put("metrics.jsonl", b"3\n")),
    "metrics.jsonl with a record of something else": both(remove("results.json"), put("metrics.jsonl", b'{"a": 1}\n')),
    "the final checkpoint gone": remove(f"checkpoints/{LAST}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUED)
def test_a_run_that_lost_its_end_gets_it_again(name, finished, run, capfd):
    """The command continues at the last good checkpoint and ends with the same figures."""
    before = RunDir(finished).read_results()
    CONTINUED[name](run)
    message, code = harness.cli.attempt("train", [word.replace("{run}", str(run)) for word in AGAIN[1:]])
    output = capfd.readouterr().out
    assert code == 0, message
    assert "continuing at step" in output
    assert RunDir(run).read_results()["ensemble"] == before["ensemble"]
    assert (run / "checkpoints" / LAST).is_dir() and (run / "curve.png").exists()
    if name.startswith("metrics"):
        assert "lines of" in output and "could not be read" in output


def test_a_second_run_is_kept_out(run):
    (run / "results.json").unlink()
    with RunDir(run).locked():
        message, code = harness.cli.attempt("train", [word.replace("{run}", str(run)) for word in AGAIN[1:]])
    assert (code, str(run) in message and "process" in message) == (1, True)


def test_loading_names_what_is_wrong(run):
    with pytest.raises(ValueError, match="expert='0'.* the run has experts 0 to 1"):
        ncl_jax.load(run, expert="0")
    with pytest.raises(ValueError, match="expert=2"):
        ncl_jax.load(run, expert=2)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; it has \[4, 8\]"):
        ncl_jax.load(run, step=3)
    with pytest.raises(ConfigError, match="config.json"):
        ncl_jax.load(run / "checkpoints")
