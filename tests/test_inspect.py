"""What `ncl-jax inspect` finds in a folder, and the recipe that is chosen for one."""

import shutil

import numpy as np
import pytest
from matplotlib.image import imread
from test_own_images import make_folder, write_image

from ncl_jax import cli
from ncl_jax.config import backbone, build_data, checks, recipes
from ncl_jax.config import files as config_files
from ncl_jax.data.types import Split
from ncl_jax.errors import ConfigError
from ncl_jax.runs import findings, remarks

PICTURES = True
COUNTS = {"cat": 120, "dog": 30, "fish": 6}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A folder with nothing wrong."""
    root = make_folder(tmp_path_factory.mktemp("inspect") / "data", ("train",), COUNTS)
    return make_folder(root, ("test",), dict.fromkeys(COUNTS, 2))


@pytest.fixture
def folder(clean, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(clean, tmp_path / "data")


def inspect(folder, tmp_path, capfd, *fields):
    """Exit code and output."""
    picture = f"--picture={tmp_path}/classes.png"
    message, code = cli.attempt("inspect", [f"--config=folder:dir={folder},image_size=16", picture, *fields])
    return code, capfd.readouterr().out + message


def test_a_clean_folder(clean, tmp_path, capfd):
    code, output = inspect(clean, tmp_path, capfd)
    assert code == 0 and "nothing was found that would stop or spoil a run" in output
    lines = [line.split() for line in output.splitlines()]
    for line in (["cat", "120", "2", "many"], ["dog", "30", "2", "medium"], ["fish", "6", "2", "few"]):
        assert line in lines
    assert "imbalance factor 20 (120 to 6 training images)" in output
    assert "1 many-shot classes" in output and "1 medium-shot" in output and "1 few-shot" in output
    assert "width 10 to 10, median 10; height 12 to 12, median 12" in output
    assert "--config.data.image_size=32 (the configuration has 16)" in output
    for same in ("loss.num_hard", "optim.batch_size", "data.feed"):  # as train has them
        assert f"--config.{same}" not in output
    assert imread(tmp_path / "classes.png").shape[2] == 4


def test_unreadable_files_are_all_named(folder, tmp_path, capfd):
    (folder / "train" / "cat" / "4.jpg").write_bytes(b"")
    (folder / "train" / "dog" / "5.jpg").write_bytes(b"text")
    (folder / "test" / "dog" / "1.jpg").write_bytes((folder / "test" / "dog" / "1.jpg").read_bytes()[:200])
    code, output = inspect(folder, tmp_path, capfd, "--config.data.skip_unreadable=True")
    assert code == 1 and "2 problems would stop or spoil a run" in output
    assert "problem: unreadable images in train: 2" in output and "problem: unreadable images in test: 1" in output
    for name in ("train/cat/4.jpg", "train/dog/5.jpg", "test/dog/1.jpg"):
        assert f"    {name} cannot be read as an image" in output


def test_unreadable_files_do_not_hinder_the_choice_of_a_size(folder, tmp_path, capfd):
    (folder / "train" / "cat" / "4.jpg").write_bytes(b"")
    picture = f"--picture={tmp_path}/classes.png"
    message, code = cli.attempt("inspect", [f"--config=folder:dir={folder}", picture])
    assert code == 1 and "1 problem would stop" in message
    assert "train/cat/4.jpg cannot be read" in capfd.readouterr().out


def test_the_same_image_in_train_and_test(folder, tmp_path, capfd):
    shutil.copy(folder / "train" / "cat" / "7.jpg", folder / "test" / "cat" / "other name.jpg")
    code, output = inspect(folder, tmp_path, capfd)
    assert code == 1 and "train and in test: 1" in output
    assert "train train/cat/7.jpg is test test/cat/other name.jpg" in output


def test_remarks_stop_nothing(folder, tmp_path, capfd):
    shutil.copy(folder / "train" / "cat" / "7.jpg", folder / "train" / "dog" / "7b.jpg")
    shutil.rmtree(folder / "test" / "fish")
    code, output = inspect(folder, tmp_path, capfd)
    assert code == 0
    assert "note: classes without an image in test (no figure can be given): 1\n    fish" in output
    assert (
        "note: training images that are in two classes: 1\n    train train/cat/7.jpg is train train/dog/7b.jpg"
        in output
    )


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("loss.num_hard=4", r"problem: loss.num_hard=4 is larger than the number of classes, 3"),
        ("optim.batch_size=157", r"problem: optim.batch_size=157 is larger than the 156 training images"),
    ],
)
def test_a_configuration_that_does_not_fit(clean, tmp_path, capfd, field, said):
    code, output = inspect(clean, tmp_path, capfd, f"--config.{field}")
    assert code == 1 and said in output and "(the configuration has" in output


def test_a_class_of_the_test_set_alone_is_one_line(folder, tmp_path, capfd):
    write_image(folder / "test" / "bird" / "1.jpg")
    code, output = inspect(folder, tmp_path, capfd)
    assert code == 1 and "has classes that train has not: bird" in output


def test_a_picture_that_cannot_be_written(clean, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    code, output = inspect(clean, tmp_path / "file", capfd)
    assert code == 1 and "cannot write to --out=" in output and "classes.png" in output


def test_many_classes_are_cut_short(tmp_path, capfd):
    make_folder(tmp_path / "data", ("",), {f"class {i:03}": 2 for i in range(70)})
    code, output = inspect(tmp_path / "data", tmp_path, capfd)
    assert code == 0 and "... 10 classes between, see the picture ..." in output and "all 70 classes" in output


def test_data_in_memory(tmp_path, capfd):
    message, code = cli.attempt("inspect", ["--config=quickstart", f"--picture={tmp_path}/classes.png"])
    output = capfd.readouterr().out
    assert code == 0, message
    assert "width 28 to 28" in output and "imbalance factor 100" in output and "data.image_size" not in output


# The recipes for own images


def config_of(arguments):
    config = config_files.load(arguments)
    checks.validate(config)
    return config


def test_small_images_get_the_cifar_network(clean):
    config = config_of(f"folder:dir={clean}")
    assert (config.data.image_size, config.model.backbone, config.data.augment) == (32, "cifar_resnet", "autoaugment")
    assert (config.loss.num_hard, config.optim.batch_size, config.epochs) == (2, 8, 30)
    assert config.optim.learning_rate == pytest.approx(0.1 / 8) and config.loss.ramp_steps == 300


@pytest.mark.parametrize(("num_images", "depth"), [(1000, 18), (30_000, 50)])
def test_photographs_get_a_resnet(clean, monkeypatch, num_images, depth):
    monkeypatch.setattr(Split, "__len__", lambda self: num_images)
    config = config_of(f"folder:dir={clean},image_size=128,pretrained=none,method=ncl,seed=3,epochs=200")
    assert (config.model.backbone, config.model.depth, config.data.resize) == ("resnet", depth, 146)
    assert (config.data.augment, config.contrast.augment, config.contrast.weight) == ("imagenet", "places", 1)
    assert (config.seed, config.epochs, config.loss.ramp_steps) == (3, 200, 0)


@pytest.mark.parametrize(
    ("side", "size"), [(10, 32), (40, 32), (41, 64), (80, 64), (100, 128), (160, 128), (161, 224), (2000, 224)]
)
def test_the_size_that_suits(side, size):
    assert recipes.size_for(np.array([[side, 3 * side]] * 3)) == size


def test_the_batch_is_that_of_the_data_that_is_kept(clean, monkeypatch):
    counted = []
    monkeypatch.setattr(recipes, "fit_batch", lambda config, count: counted.append(count))
    for imbalance in (0, 4):
        config_files.load(f"folder:dir={clean},imbalance={imbalance}")
    assert counted[0] == 156 and counted[1] < 30


def test_photographs_of_many_sizes_are_to_be_streamed(folder, tmp_path, capfd):
    write_image(folder / "train" / "cat" / "large.jpg", 1, (40, 30))
    fields = ("--config.data.augment=imagenet", "--config.data.feed=resident")
    code, output = inspect(folder, tmp_path, capfd, *fields)
    assert code == 0 and "--config.data.feed=stream (the configuration has resident)" in output


def test_a_list_gets_the_same_recipe(clean, tmp_path):
    for split in ("train", "test"):
        paths = sorted((clean / split).rglob("*.jpg"))
        lines = [f"{path.relative_to(clean)} {list(COUNTS).index(path.parent.name)}" for path in paths]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    lists = f"train={tmp_path}/train.txt,test={tmp_path}/test.txt"
    ours, folder = config_of(f"list:dir={clean},{lists}"), config_of(f"folder:dir={clean}")
    ours.data.list, ours.data.name = folder.data.list, folder.data.name
    assert ours == folder


def test_what_is_suggested_is_what_a_frozen_backbone_uses(clean):
    config = config_of(f"folder:dir={clean},image_size=128,pretrained=none")
    data = build_data.data(config)
    sizes = np.full((156, 2), 300)
    assert any("data.image_size=224" in line for line in remarks.suggestions(config, data, sizes))
    backbone.use(config, "efficientnet_lite0", image_size=128)
    lines = remarks.suggestions(config, data, sizes)
    assert not any("image_size" in line or "data.feed" in line for line in lines)
    assert "efficientnet_lite0 at 128 pixels" in lines[-1]


def test_weights_that_are_not_there_are_a_note(clean):
    config = config_of(f"folder:dir={clean},image_size=16,pretrained=none")
    backbone.use(config, "efficientnet_lite0", pretrained="gone.pth", image_size=16)
    data = build_data.data(config)
    found, why = findings.of_backbone(config, data, {})
    assert found == {} and "labels and outliers need" in why and "gone.pth" in why


def test_what_is_missing_is_said(tmp_path):
    for name in ("folder", "list"):
        with pytest.raises(ConfigError, match=f"missing: .*--config={name}:dir=DIR"):
            config_files.load(name)
    make_folder(tmp_path, ("train",), {"only": 3})
    with pytest.raises(ConfigError, match="has one class, only: a classifier needs two or more"):
        config_files.load(f"folder:dir={tmp_path}")
    write_image(tmp_path / "train" / "other" / "1.jpg")
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of the images can be read.*image_size=64"):
        config_files.load(f"folder:dir={tmp_path}")


# What the authors' configurations and program say, METHOD.md section 7 in ours.
LARGE = {  # depth, cosine scale, epochs, batch, learning rate, schedule, weight of the contrast
    "imagenet_lt": (50, 16, 200, 256, 0.2, "cosine", 0),
    "places_lt": (152, 16, 30, 256, 0.02, "step", 1),
    "inaturalist2018": (50, 32, 400, 512, 0.2, "cosine", 0),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_large_recipes_are_the_authors(name):
    config = config_of(name)
    model, optim = config.model, config.optim
    ours = (model.depth, model.cosine_scale, config.epochs, optim.batch_size, optim.learning_rate, optim.schedule)
    assert (*ours, config.contrast.weight) == LARGE[name]
    assert (config.model.backbone, config.model.classifier, config.model.num_experts) == ("resnet", "cosine", 3)
    assert (config.data.image_size, config.data.resize, config.loss.ramp_steps) == (224, 256, 0)
    places = name == "places_lt"
    assert (config.data.augment, config.optim.warmup_epochs) == (("places", 5) if places else ("imagenet", 0))
    if places:
        assert tuple(config.optim.milestones) == (10, 20) and config.contrast.augment == "places"
    short = config_of(f"{name}:epochs=10,method=ce,seed=2")
    assert (short.epochs, short.seed, short.loss.ramp_steps) == (10, 2, 300)
