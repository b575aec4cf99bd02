"""Faults that are known before any data is read: the command line, configuration files, values."""

import re

import bad_values
import harness
import pytest
from harness import TRAIN, Fault

QUICK = "--config=quickstart"
NEW = "--workdir={tmp}/new"


def value(field, bad, said=None):
    """A field's bad value, from the command line."""
    said = said or rf"^error: {field}='?{re.escape(str(bad))}'? must be"
    others = [word for word in TRAIN if not word.startswith(f"--config.{field}=")]
    return Fault(f"{field}={bad}", (*others, NEW, f"--config.{field}={bad}"), said)


NUMBERS = [value(name, bad) for name, bad in bad_values.ROWS]
OTHER_VALUES = [
    value("optim.milestones", "(0,)", r"optim.milestones=\(0,\) must be"),
    value("optim.milestones", "(-3,)", r"optim.milestones=\(-3,\) must be"),
    value("optim.milestones", "(1.5,)", r"optim.milestones=\(1.5,\) must be"),
    value("optim.milestones", "('a',)", r"optim.milestones=\('a',\) must be numbers"),
    value("optim.milestones", "(9,)", r"optim.milestones=\(9,\) .*2"),
    value("data.mean", "(0.5,0.5)", r"data.mean=\(0.5, 0.5\) must be"),
    value("data.std", "(0.2,0.2,0.0)", r"data.std=\(0.2, 0.2, 0.0\) must be above 0"),
    value("data.std", "(0.2,0.2,0.2,0.2)", r"data.std=.* must be"),
    value("data.mean", "(0.5,0.5,'x')", r"data.mean=.* must be numbers"),
    value("epochs", "ten", r"--config.epochs=ten: invalid literal.*--help"),
    value("epochs", "1.5", r"--config.epochs=1.5: invalid literal"),
    value("optim.learning_rate", "fast", r"--config.optim.learning_rate=fast"),
    value("data.download", "perhaps", r"--config.data.download=perhaps"),
    value("data.imbalance", "50.0", r"data.imbalance=50.0.*fashion_mnist_lt.*100"),
    value("optim.batch_size", 4000, r"optim.batch_size=4000 .*1236"),
    value("loss.num_hard", 11, r"loss.num_hard=11 .*10"),
    value("loss.copies", 4, r"loss.copies=4.*loss.name=nclpp"),
    value("loss.name", "nclpp", r"loss.copies=1"),
    value("loss.name", "moco", r"loss.name='moco' must be one of: ncl, nclpp"),
    value("loss.name", "mine.py:f", r"loss.name='mine.py:f' "),
    value("run.expert_devices", 99, r"run.data_devices, run.expert_devices: .*8"),
    value("run.data_devices", 99, r"run.data_devices.*99"),
    value("run.data_devices", 7, r"optim.batch_size=256 .*7 devices"),
    Fault("depth", ("train", QUICK, NEW, "--config.model.depth=9"), r"model.depth=9 must be, for a cifar_resnet"),
    Fault("experts", (*TRAIN, NEW, "--config.model.num_experts=3", "--config.run.expert_devices=2"),
          r"run.expert_devices=2 must divide model.num_experts=3"),
    Fault("native conv on several devices",
          (*TRAIN, NEW, "--config.run.conv=native", "--config.run.data_devices=2"),
          r"run.conv=native"),
]  # fmt: skip
COMMANDS = [
    Fault("no arguments", ("train",), "required: --config"),
    Fault("a configuration without a value", ("train", "--config"), "--config: expected one argument"),
    Fault("an empty configuration", ("train", "--config="), "'' does not exist"),
    Fault("a missing file", ("train", "--config=configs/mine.py"), "'configs/mine.py' does not exist"),
    Fault("a missing file, with a space", ("train", "--config", "configs/mine.py"), "'configs/mine.py' does not exist"),
    Fault("a misspelt name", ("train", "--config=quickstrat"), "'quickstrat' does not exist .did you mean quickstart"),
    Fault("a misspelt argument", ("train", f"{QUICK}:methode=ncl"), "unknown argument 'methode=ncl' .did you mean method"),
    Fault("an argument without a value", ("train", f"{QUICK}:epochs"), "unknown argument 'epochs'"),
    Fault("an argument twice", ("train", f"{QUICK}:epochs=2,epochs=3"), "'epochs'"),
    Fault("an argument that is not a number", ("train", f"{QUICK}:epochs=ten"), "epochs='ten'.*int"),
    Fault("no epochs", ("train", f"{QUICK}:epochs=0"), "epochs=0 must be at least 1"),
    Fault("a misspelt method", ("train", f"{QUICK}:method=nlc"), "method='nlc' must be one of: ce, balanced_softmax"),
    Fault("misspelt semantics", ("train", f"{QUICK}:semantics=paper"), "semantics='paper' must be one of: official"),
    Fault("an unknown flag", ("train", QUICK, "--work=x"), "unknown argument .--work=x"),
    Fault("an unknown field", ("train", QUICK, "--config.epoch=3"), "unknown field 'epoch' .did you mean epochs"),
    Fault("a field of a section", ("train", QUICK, "--config.optim.lr=3"), "unknown field 'optim.lr'.*learning_rate"),
    Fault("an unknown section", ("train", QUICK, "--config.optimizer.momentum=0"), "unknown field 'optimizer.momentum'"),
    Fault("a field without a value", ("train", QUICK, "--config.epochs"), "config.epochs"),
    Fault("a word too many", ("train", QUICK, "again"), r"unknown argument 'again'"),
    Fault("a negative extension", (*TRAIN, NEW, "--extend=-1"), "--extend=-1 must be at least 0"),
    Fault("an extension that is not a number", (*TRAIN, NEW, "--extend=more"), "extend"),
    Fault("a coordinator alone", (*TRAIN, NEW, "--coordinator=localhost:1"), "belong together"),
    Fault("a coordinator without a port", (*TRAIN, "--coordinator=nonsense", "--num_processes=2", "--process_id=0"),
          "--coordinator=nonsense \\b"),
    Fault("no processes", (*TRAIN, "--coordinator=localhost:1234", "--num_processes=0", "--process_id=0"),
          "--num_processes=0 must be at least 1"),
    Fault("a process too many", (*TRAIN, "--coordinator=localhost:1234", "--num_processes=1", "--process_id=1"),
          "--process_id=1 must be from 0 to 0"),
    Fault("a file as directory", (*TRAIN, "--workdir={tmp}/run/config.json"), "--workdir=.*config.json"),
    Fault("a directory below a file", (*TRAIN, "--workdir={tmp}/run/config.json/x"), "--workdir="),
    Fault("evaluate nothing", ("evaluate", "--run={tmp}/none"), "none is not a directory"),
    Fault("evaluate without a directory", ("evaluate",), "required: --run/--workdir; ncl-jax evaluate --help"),
    Fault("evaluate a step that is not a number", ("evaluate", "--run={run}", "--step=ten"), "invalid step value: 'ten'"),
    Fault("evaluate with an unknown flag", ("evaluate", "--run={run}", "--stop"), "unknown argument .--stop. .did you mean --step"),
    Fault("export without a file", ("export", "--run={run}"), "required: --out"),
    Fault("ablate a misspelt method", ("ablate", QUICK, "--methods=nlc"), "'nlc' must be one of: ce.*did you mean"),
    Fault("ablate a method twice", ("ablate", QUICK, "--methods=ce,ncl,ce"), "'ce'"),
    Fault("ablate no seeds", ("ablate", QUICK, "--seeds=0"), "--seeds=0 must be at least 1"),
    Fault("ablate with an unknown argument", ("ablate", QUICK, "--epochs=3"), "unknown argument '--epochs=3'"),
    Fault("ablate one seed", ("ablate", QUICK, "--config.seed=1"), "'--config.seed=1'.*--seeds"),
    Fault("evaluate a file", ("evaluate", "--run={run}/config.json"), "config.json is not a directory"),
    Fault("evaluate a step", ("evaluate", "--run={run}", "--step=5"), r"step 5.* \[4, 8\]"),
    Fault("finish at a step", ("evaluate", "--run={run}", "--step=4", "--finish"), "--step"),
    Fault("evaluate without the data", ("evaluate", "--run={run}"), "cifar-10-python.tar.gz",
          spoil=lambda run: edit(run / "config.json", "fashion_mnist_lt", "cifar10")),
    Fault("export nothing", ("export", "--run={tmp}/none", "--out={tmp}/m"), "none is not a directory"),
    Fault("export in no format", ("export", "--run={run}", "--out={tmp}/m", "--format=caffe"),
          "--format=caffe must be one of: stablehlo"),
    Fault("export over a file", ("export", "--run={run}", "--out={run}/config.json"), "exists"),
    Fault("export into no folder", ("export", "--run={run}", "--out={tmp}/none/m"), "none/m"),
    Fault("ablate without a file", ("ablate", "--config=nope"), "'nope' does not exist; installed are"),
    Fault("ablate into a file", ("ablate", QUICK, "--methods=ce", "--workdir={run}/config.json"), "config.json"),
    Fault("ablate with a bad argument", ("ablate", f"{QUICK}:epochs=ten"), "epochs='ten'"),
]  # fmt: skip


def edit(path, old, new):
    """Replaces a text in a file."""
    path.write_text(path.read_text().replace(old, new))


FILES = {
    "syntax": ("def get_config(:", r"own.py, line 1: SyntaxError"),
    "a missing import": ("import no_such_package", r"own.py, line 1: ModuleNotFoundError: No module named 'no_such"),
    "no get_config": ("x = 1", r"own.py.*get_config"),
    "empty": ("", r"own.py.*get_config"),
    "get_config is no function": ("get_config = 3", r"get_config"),
    "a wrong signature": ("def get_config():\n    return 1", r"own.py.*TypeError: get_config\(\) takes 0"),
    "returns nothing": ("def get_config(a):\n    pass", r"get_config.*NoneType"),
    "returns a dictionary": ("def get_config(a):\n    return {}", r"get_config.*dict"),
    "raises": ("def get_config(a):\n    x = 1\n    return x / 0", r"own.py, line 3: ZeroDivisionError"),
    "a misspelt field": ("{base}    c.epoch = 1\n    return c", r"own.py, line 4: .*epoch.*(locked|does not exist)"),
    "a misspelt field of a section": ("{base}    c.optim.lr = 1\n    return c", r"own.py, line 4: .*lr"),
    "a value of another type": ("{base}    c.epochs = 'ten'\n    return c", r"own.py, line 4: TypeError"),
    "a section replaced": ("{base}    c.optim = 3\n    return c", r"own.py, line 4: TypeError"),
    "binary": ("\x00\x01", r"own.py.*(SyntaxError|ValueError)"),
}
BASE = "from ncl_jax.config import base_config\ndef get_config(a):\n    c = base_config()\n"


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_file_with_a_fault_is_named_with_the_line(name, tmp_path, capfd):
    text, said = FILES[name]
    (tmp_path / "own.py").write_text(text.replace("{base}", BASE))
    (tmp_path / "run").mkdir()
    harness.attempt(Fault(name, ("train", "--config={tmp}/own.py"), said), tmp_path / "run", tmp_path, capfd)


@pytest.mark.parametrize("fault", [*NUMBERS, *OTHER_VALUES], ids=lambda fault: fault.name)
def test_a_bad_value_is_named_and_nothing_written(fault, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    harness.attempt(fault, tmp_path / "run", tmp_path, capfd)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("fault", COMMANDS, ids=lambda fault: fault.name)
def test_a_bad_command_is_one_line(fault, run, tmp_path, capfd):
    harness.attempt(fault, run, tmp_path, capfd)
