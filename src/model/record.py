"""What a training leaves in its folder: the names of its files, and the content of train.json. No mindspore here."""

from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from ..files import read_json
from ..utils import LOGGER, InputError, ResumeError


@dataclass(frozen=True)
class TrainingFolder:
    """The files of one category's training in ``path``; each is replaced atomically after a whole epoch."""

    path: Path
    category: str

    @property
    def checkpoint(self) -> Path:
        """Teacher and student; its sidecar, the resolved configuration, stands beside it."""
        return self.path / f"{self.category}_last.ckpt"

    @property
    def resume_state(self) -> Path:
        """Student, optimiser state and record: all that a resumed run needs."""
        return self.path / f"{self.category}_resume.ckpt"

    @property
    def record(self) -> Path:
        """Loss and time of every epoch, a ``TrainingRecord``."""
        return self.path / "train.json"


def check_resume_state(folder: TrainingFolder) -> None:
    """Check that there is something to resume, before anything slow.

    Raises:
        ResumeError: there is not.
    """
    if not folder.resume_state.is_file():
        raise ResumeError(f"--resume: {folder.resume_state} does not exist; start without --resume")


class EpochRecord(TypedDict):
    """One epoch: its number from 1, mean loss per batch, loss of its last batch, seconds of its steps."""

    epoch: int
    loss: float
    last_batch_loss: float
    seconds: float
    held_out_loss: NotRequired[float]  # of the student in evaluation, per held-out image, where some are


class EvaluationRecord(TypedDict):
    """An evaluation during training, for information; a metric that is not defined is None."""

    epoch: int
    pixel_auroc: float | None
    image_auroc: float | None
    pro: float | None


class Configuration(TypedDict):
    """Everything that the weights depend on: a training is only resumed with the same."""

    category: str
    image_size: int | list[int]  # height and width where they differ
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    seed: int
    amp_level: str
    cache_teacher: bool  # whether the teacher's features are computed once
    train_images_sha256: str  # over names and contents of the images that are trained on
    teacher_sha256: str  # over the teacher's weights
    ranks: NotRequired[int]  # how many processes train together, where that is more than one
    val_split: NotRequired[float]  # share of the images that is held out, where some are
    lr_schedule: NotRequired[str]  # where it is not constant
    epochs: NotRequired[int]  # length of such a schedule
    init_sha256: NotRequired[str]  # over the weights that the student starts from, where these are not random
    roi: NotRequired[list[int]]  # the region of interest, where there is one
    ignored_runs: NotRequired[list[int]]  # where nothing counts, as in ``View``
    train_tile: NotRequired[list[int]]  # height and width of the pieces that images are trained in, where they are


class Circumstances(TypedDict):
    """What else the record says: nothing of this influences the weights."""

    device_target: str
    train_images: int
    steps_per_epoch: int
    epochs_requested: int
    data_url: str
    pre_ckpt_path: str
    train_pieces: NotRequired[int]  # how many pieces of the images, where they are trained on in pieces
    init_from: NotRequired[str]


class TrainingRecord(Circumstances):
    """The content of train.json."""

    category: str
    finished_at: str  # ISO 8601, with the offset from UTC
    epochs_trained: int
    training_seconds: float
    config: Configuration
    config_hash: str
    versions: dict[str, str]
    epochs: list[EpochRecord]
    evaluations: list[EvaluationRecord]


def read_record(model_path: Path, config_hash: str | None) -> TrainingRecord | None:
    """Read the record beside a checkpoint; None where there is none of this training, or (a warning) a damaged one.

    Args:
        config_hash: of the configuration that the model was trained with.
    """
    path = TrainingFolder(model_path.parent, "").record
    if config_hash is None or not path.exists():
        return None
    try:
        content = read_json(path)
        if content.get("config_hash") != config_hash:
            return None
        numbers = [1 / content["train_images"], content["steps_per_epoch"], len(content["config"].keys())]
        for epoch in content["epochs"]:
            numbers += [epoch["epoch"], epoch["loss"], epoch.get("held_out_loss", 0.0)]
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("a loss that is no number")
    except (InputError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        LOGGER.warning("warning: %s: damaged record, left out: %s", path, error)
        return None
    return cast(TrainingRecord, content)
