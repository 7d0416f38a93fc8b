"""What a sweep knows of one category: its command lines, whether it is finished, how far it is. No mindspore here."""

import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from ..data.samples import list_test, list_train, samples_sha256
from ..files import file_sha256, fingerprint, read_json, write_json
from ..model.record import TrainingFolder
from ..report.table import read_results
from ..utils import InputError
from .worker import Command

ROOT = Path(__file__).resolve().parent.parent.parent
MARKER = "sweep.json"
PATIENCE = 60.0  # seconds after which a job that Ray has not begun is late


@dataclass(frozen=True)
class Programs:
    """The programs that train and evaluate a category."""

    train: Path = ROOT / "train.py"
    evaluate: Path = ROOT / "test.py"


@dataclass
class Job:
    """One category of a sweep.

    Attributes:
        flags: further flags of train.py.
        backbone_sha256: of the backbone's file, or "random".
        state: "waiting", "running", "finished", "failed" or "skipped" (finished by an earlier sweep).
        failures: one line for each failed attempt.
        was_refused: whether an attempt was refused to go on from what an earlier training had left.
    """

    category: str
    data: Path
    out: Path
    backbone: str
    backbone_sha256: str
    flags: list[str]
    device_target: str
    programs: Programs = field(default_factory=Programs)
    state: str = "waiting"
    failures: list[str] = field(default_factory=list)
    was_refused: bool = False
    # when it was given to Ray (time.monotonic), and what its log and its record were then
    _given_at: float = 0.0
    _log_then: int = 0
    _record_then: tuple[int, int] | None = None

    @property
    def folder(self) -> Path:
        """Where everything of the category goes."""
        return self.out / self.category

    @property
    def training(self) -> TrainingFolder:
        """The files that training writes."""
        return TrainingFolder(self.folder, self.category)

    @property
    def results(self) -> Path:
        """What evaluation writes."""
        return self.folder / "results.json"

    @cached_property
    def configuration(self) -> str | None:
        """A fingerprint of all that the result depends on; None where the data cannot be listed."""
        try:
            unsaid: list[str] = []  # the programs that it starts say what is left out
            samples = list_train(self.data, self.category, report=unsaid.append)
            if self.has_test_images():
                samples += list_test(self.data, self.category, report=unsaid.append)
            found = samples_sha256(samples, with_masks=True)
        except InputError:
            return None  # training or evaluation will say what is wrong
        return fingerprint({"flags": self.flags, "backbone": self.backbone_sha256, "samples": found})

    def has_test_images(self) -> bool:
        """Tell whether there is anything to evaluate on."""
        return (self.data / self.category / "test").is_dir()

    def hand_over(self) -> None:
        """Become a running job, whenever Ray begins with it."""
        self.state = "running"
        self._given_at, self._log_then, self._record_then = time.monotonic(), self._log_size(), self._record_mark()

    def is_late(self) -> bool:
        """Tell whether Ray was given the job some time ago and has not begun with it."""
        waited = time.monotonic() - self._given_at
        return self.state == "running" and waited > PATIENCE and self._log_size() == self._log_then

    def _record_mark(self) -> tuple[int, int] | None:
        """Return what changes when the training's record is replaced; None where there is none."""
        try:
            found = self.training.record.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _log_size(self) -> int:
        log = self.folder / "train.log"
        return log.stat().st_size if log.exists() else 0

    def marker(self) -> dict:
        """Return what an earlier or this sweep noted of the category; empty where it noted nothing readable."""
        try:
            return read_json(self.folder / MARKER)
        except InputError:
            return {}

    def note(self, state: str, **facts: object) -> None:
        """Note the state on disk, for the next sweep."""
        write_json(self.folder / MARKER, {"state": state, "configuration": self.configuration, **facts})

    def note_started(self) -> None:
        """Note that training begins, and which state to go on from, left by another one, it may still find."""
        self.note("started", foreign_resume_state=None if self.is_resumable() else _sha256(self.training.resume_state))

    def note_finished(self, seconds: list[float]) -> None:
        """Note that training and evaluation succeeded, in so many seconds each, and which files they left."""
        self.note(
            "finished",
            seconds=seconds,
            checkpoint=_sha256(self.training.checkpoint),
            resume_state=_sha256(self.training.resume_state),
            results=_sha256(self.results),
        )

    def is_finished(self) -> bool:
        """Tell whether a sweep with the same configuration trained and evaluated the category.

        Not where its checkpoint or its results are others by now: somebody trained or evaluated there by hand.
        """
        marker = self.marker()
        return (
            self.configuration is not None
            and marker.get("state") == "finished"
            and marker.get("configuration") == self.configuration
            and _is_unchanged(self.training.checkpoint, marker.get("checkpoint"))
            and (not self.has_test_images() or _is_unchanged(self.results, marker.get("results")))
        )

    def is_resumable(self) -> bool:
        """Tell whether training with the same configuration was begun and left a state to go on from."""
        marker = self.marker()
        if self.configuration is None or marker.get("configuration") != self.configuration:
            return False
        if (state := _sha256(self.training.resume_state)) is None:
            return False
        if marker.get("state") == "finished":  # since then somebody may have trained there by hand
            checkpoint = _sha256(self.training.checkpoint)
            return state == marker.get("resume_state") and checkpoint in (None, marker.get("checkpoint"))
        return state != marker.get("foreign_resume_state") and not self.was_refused

    def commands(self) -> list[Command]:
        """Return the command lines that train and evaluate the category, as a user would type them."""
        # argparse would take a name that begins with a dash for a flag
        category = [f"--category={self.category}"] if self.category[0] == "-" else ["--category", self.category]
        common = [*category, "--device_target", self.device_target]
        train = [sys.executable, str(self.programs.train), *common, "--data_url", str(self.data)]
        train += ["--pre_ckpt_path", self.backbone, "--train_url", str(self.out), *self.flags]
        if self.is_resumable():
            train.append("--resume")
        commands = [Command(train, str(self.folder / "train.log"))]
        if self.has_test_images():
            evaluate = [sys.executable, str(self.programs.evaluate), *common, "--eval_url", str(self.data)]
            evaluate += ["--out_dir", str(self.out), "--save_sample", "True", "--report", str(self.folder)]
            evaluate += ["--ckpt_path", str(self.training.checkpoint)]
            commands.append(Command(evaluate, str(self.folder / "eval.log")))
        return commands

    def progress(self) -> tuple[str, str, str]:
        """Return epoch ("3/100"), loss and remaining time, from the training's record; "" before its first epoch."""
        if self._record_mark() == self._record_then:
            return "", "", ""  # of an earlier attempt, or somebody else's
        try:
            record = read_json(self.training.record)
            last, trained, epochs = record["epochs"][-1], record["epochs_trained"], record["epochs_requested"]
            left = last["seconds"] * (epochs - trained)
            return f"{trained}/{epochs}", f"{last['loss']:.4f}", tqdm.format_interval(left)
        except (OSError, InputError, KeyError, IndexError, TypeError, ValueError):  # none yet, or damaged
            return "", "", ""

    def metrics(self) -> dict:
        """Return the category's results; empty where there are none, or none of this configuration."""
        if self.state not in ("finished", "skipped") or not self.has_test_images():
            return {}
        try:
            return read_results(self.results)
        except InputError:
            return {}


def _sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none to read."""
    try:
        return file_sha256(path)
    except InputError:
        return None


def _is_unchanged(path: Path, sha256: object) -> bool:
    return sha256 is not None and _sha256(path) == sha256
