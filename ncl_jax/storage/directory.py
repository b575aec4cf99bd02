"""A run's directory: the names of its files, its lock, and whether it holds the run that is asked for."""

import contextlib
import fcntl
import gzip
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections

from ncl_jax.config import saved as saved_config
from ncl_jax.config.fields import differences
from ncl_jax.data.dataset import Data, Facts
from ncl_jax.data.holdout import RULE
from ncl_jax.data.images import pixels
from ncl_jax.errors import CheckpointError, ConfigError, DataError, NclError, WriteError, one_line, printable
from ncl_jax.runtime.files import expand, name_text, read_file, write_text, write_together
from ncl_jax.runtime.schema import anything, mapping, read_bytes, read_json
from ncl_jax.storage import contents, listing, place

VERSION = 1  # of the training state: a run of another one can be used, but not continued


class RunDir(place.Names):
    """The directory of a run; nothing is created before it is locked."""

    def __init__(self, path: str | pathlib.Path):
        super().__init__(expand("--workdir", path))
        self._held: int | None = None  # a descriptor of the directory while it is locked
        self._begun: dict[pathlib.Path, bytes] = {}  # what `begin` wrote

    def __str__(self) -> str:
        return printable(str(self.path))

    def check(
        self,
        config: ml_collections.ConfigDict,
        data: Data | None = None,
        saved: dict | None = None,
        accept: bool = False,
    ) -> None:
        """Raises ConfigError if the directory holds another run than of this configuration and these data; `accept`s
        other images of the same classes.

        A run that ended before its first checkpoint has nothing to resume from: another may take its place. `saved` is
        what the newest checkpoint says its configuration was, for a directory without `config.json`.
        """
        stored = self.stored(saved)
        if stored is None:
            return
        differing = differences(stored, config)
        advice = "Repeat that run's command, or pass another --workdir"
        held = "holds a run of another configuration"
        if data is not None and (changed := self.changed(data)):
            if not differing and self.read_facts().class_names == data.facts.class_names:
                if accept:
                    return
                held = "holds a run, and its images have changed since it began"
                advice = (
                    "Restore the files, pass another --workdir, or continue with the images found now: "
                    "--data-changed=accept. ncl-jax evaluate works with the test images that are left"
                )
            differing.append(f"the data: {changed}")
        if differing:
            raise ConfigError(f"{self} {held}: {'; '.join(differing)}. {advice}")

    def changed(self, data: Data) -> str:
        """What has changed in a run's data, in words; empty where nothing has."""
        if not self.has_begun() or not self.facts.exists() or self.read_facts() == data.facts:
            return ""
        return (
            listing.changes(self.read_files(), list(map(name_text, data.listing()))) or f"another than in {self.facts}"
        )

    def stored(self, saved: dict | None = None) -> ml_collections.ConfigDict | None:
        """The configuration of the run that has begun here, with its notes; None where none has. `saved`: see `check`.

        Raises ConfigError where its file is damaged."""
        if not self.has_begun() or (not self.config.exists() and saved is None):
            return None
        return self.read_config() if saved is None or self.config.exists() else self._configuration(saved)

    def check_version(self) -> None:
        """Raises ConfigError if the directory holds a run of another version, which cannot be continued."""
        if self.has_begun() and self.config.exists() and (version := self.read_config().get("version", 0)) != VERSION:
            raise ConfigError(
                f"{self} holds a run of version {version} of the training state, which this ncl_jax (version "
                f"{VERSION}) cannot continue. It can be evaluated and loaded; continue it with the ncl_jax that began "
                "it, or train again in another --workdir"
            )

    def begin(self, config: ml_collections.ConfigDict, data: Data, noted: dict) -> None:
        """Writes the run's configuration, its facts and the list of its image files; while `locked`.

        Args:
          config: of the run.
          data: what it is trained on.
          noted: what else `config.json` holds: `extend`; `prior_power`, which priors at inference start from;
            `split_rule`; `scaled`, see `schedule.originals`; after changes in the data `data_changed` and
            `steps_per_epoch`. Not `pixels`, by which rule the first images of the run were read (`pixels.VERSION`):
            that stays what it was.

        Raises:
          WriteError: it cannot be written.
        """
        content = config.to_dict() | {"version": VERSION, "pixels": self.read_pixels()} | noted
        self._begun = {
            self.config: json.dumps(content, indent=1).encode() + b"\n", self.facts: data.facts.to_json().encode()
        }  # fmt: skip
        if lines := data.listing():
            text = "\n".join(["split\tclass\tpath\tbytes", *map(name_text, lines)]) + "\n"
            self._begun[self.files] = gzip.compress(text.encode(), mtime=0)
        if config.data.labels:
            self._begun[self.labels] = read_file(pathlib.Path(config.data.labels))
        if data.left_out:
            self._begun[self.skipped] = ("\n".join(map(name_text, data.left_out)) + "\n").encode()
        deleted = () if self.has_begun() else (self.temperature, self.calibration, self.known, self.out_of_fold)
        with self.writing():
            for path in deleted:  # of a run that was here before
                path.unlink(missing_ok=True)
            write_together(self._begun)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns what the file system refuses into a WriteError that says what to do."""
        try:
            yield
        except OSError as error:
            raise WriteError(
                f"cannot write to --workdir={self} ({error}): free disk space, fix it or pass another one; the same "
                "command then continues the run at its last checkpoint"
            ) from error

    def read_config(self) -> ml_collections.ConfigDict:
        """The run's configuration. Raises ConfigError where there is none."""
        if not self.path.is_dir():
            raise ConfigError(f"{self} is not a directory{place.near(self.path)}: pass the one of a run")
        try:
            return saved_config.read(read_json(self.config, contents.MOST_CONFIG, mapping(anything)))
        except (OSError, ValueError, TypeError, NclError) as error:
            raise ConfigError(
                f"{self.config} is not the configuration of a run ({one_line(error)}): pass the run's directory, or "
                "restore the file from a backup"
            ) from error

    def _configuration(self, stored: dict) -> ml_collections.ConfigDict:
        """The configuration that a checkpoint's record holds. Raises ConfigError."""
        try:
            return saved_config.read(stored)
        except (ValueError, TypeError, NclError) as error:
            raise ConfigError(
                f"{self.checkpoints}: the newest checkpoint holds no configuration of a run ({one_line(error)}): "
                f"restore {self.config} from a backup"
            ) from error

    def read_extend(self) -> int:
        """By how many epochs the run has been extended so far."""
        return self.note("extend", 0)

    def read_pixels(self) -> int:
        """The version of the rule by which the run's images were read when it began; 0 where that is not known."""
        if not self.has_begun():
            return pixels.VERSION
        stored = self.read_config().get("pixels") if self.config.exists() else None
        return stored if isinstance(stored, int) else 0

    def split_rule(self, saved: dict | None = None) -> int:
        """The version of the rule by which images were held out when the run began; 1 for runs from before it was
        noted. `saved` as for `check`."""
        rule = self.note("split_rule", 1, saved) if self.has_begun() else RULE
        if rule not in range(1, RULE + 1):
            raise ConfigError(f"{self.config}: split_rule={rule} is not known to this ncl_jax: update it")
        return rule

    def pinned(self) -> dict[str, str]:
        """The split of every image file of a run that has begun, by its path: they stay there."""
        return listing.pinned(self.read_files()) if self.has_begun() else {}

    def note(self, name: str, default: Any, saved: dict | None = None) -> Any:
        """What `config.json` notes beside the fields, one of `fields.NOTES`, of a run that has begun; `saved` as for
        `check`."""
        if not self.has_begun():
            return default
        return self.read_config().get(name, default) if self.config.exists() else (saved or {}).get(name, default)

    def read_facts(self) -> Facts:
        """What the run's data was. Raises CheckpointError where nothing was written down yet."""
        try:
            return Facts.of(read_json(self.facts, contents.MOST_FACTS, contents.facts))
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.facts} does not exist: {self} holds no run that has started") from error
        except (OSError, ValueError, DataError) as error:
            raise ConfigError(
                f"{self.facts} is not what a run writes ({one_line(error)}): restore it from a backup, or move it away "
                "and pass the run's command again"
            ) from error

    def read_files(self) -> list[str]:
        """The lines of the run's image files, `Data.listing` by `name_text`; none where they were not written down."""
        return listing.read(self.files)

    def tracker(self, name: str) -> pathlib.Path:
        """The file that keeps what the run is called in a tracker."""
        return self.path / f"{name}.id"

    def read_tracker(self, name: str) -> str:
        """What the run is called in a tracker; nothing where it has not been there. Raises ConfigError."""
        try:
            return read_bytes(self.tracker(name), 1000).decode().strip()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, DataError) as error:
            raise ConfigError(
                f"{self.tracker(name)} is not what the run is called in {name} ({one_line(error)}): move it away"
            ) from error

    def write_tracker(self, name: str, value: str) -> None:
        """Keeps what the run is called in a tracker."""
        write_text(self.tracker(name), value + "\n")

    def read_results(self) -> dict | None:
        """The final figures, written last; None without them, and for a file that is cut short or something else."""
        try:
            return self.check_results()
        except ConfigError:
            return None

    def check_results(self) -> dict:
        """The final figures. Raises ConfigError, saying what is wrong with the file."""
        again = f"let the run end, or ncl-jax evaluate --run={self} --finish"
        try:
            return read_json(self.results, contents.MOST_RESULTS, contents.results, finite=False)
        except FileNotFoundError as error:
            raise ConfigError(f"{self} has no results yet: {again}") from error
        except (OSError, ValueError, DataError) as error:
            raise ConfigError(
                f"{self.results} is not what a run writes ({one_line(error)}): restore it from a backup, or move it "
                f"away and {again}"
            ) from error

    def is_finished(self, epochs: int, patience: int = 0) -> bool:
        """Whether the run has its results after `epochs` epochs, or stopped early by this `patience` or a longer one;
        and the checkpoint that they come from."""
        results = self.read_results()
        if results is None or not (self.checkpoints / str(results["step"])).is_dir():
            return False
        best = results.get("best_on_val", {"epoch": results["epoch"], "patience": 0})
        stopped = patience and best["patience"] >= patience and results["epoch"] - best["epoch"] >= patience
        return results["epoch"] >= epochs or bool(stopped)

    def last_step(self) -> int:
        """The step of the newest checkpoint; 0 without any."""
        return max((int(path.name) for path in self.checkpoints.glob("[0-9]*") if path.name.isdecimal()), default=0)

    def has_checkpoints(self) -> bool:
        """Whether there is anything to resume from."""
        return any(self.checkpoints.glob("[0-9]*"))

    def has_begun(self) -> bool:
        """Whether there is anything that would be lost: checkpoints, good or damaged, or results."""
        return self.has_checkpoints() or self.damaged.exists() or self.results.exists()

    def check_name(self) -> None:
        """Raises ConfigError for a path below which no checkpoint can be saved."""
        place.check_name(self.path)

    def whereabouts(self) -> pathlib.Path | None:
        """Where the directory of the running run is now; None where it was deleted, see `place.whereabouts`."""
        if self._held is None:  # not the first process of the run
            return self.path if self.config.exists() else None
        return place.whereabouts(self._held, self.path)

    def rewrite_missing(self) -> list[pathlib.Path]:
        """Writes again what `begin` wrote and somebody deleted; returns which files."""
        missing = {path: content for path, content in self._begun.items() if not path.exists()}
        with self.writing():
            write_together(missing)
        return list(missing)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run out. Raises ConfigError if there is one already."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            file = place.open_lock(self.path / "lock")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(f"another process is training in {self}: wait for it, or stop it") from error
            except OSError as error:
                raise WriteError(f"{self} cannot be locked ({error}): its file system must allow locks") from error
            with self._holding():
                yield

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """Keeps the directory open, by which it can be told from one that takes its name."""
        with self.writing():
            self._held = held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield
        finally:
            os.close(held)
            self._held = None
