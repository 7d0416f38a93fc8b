"""A training run on disk: its checkpoint, what it needs to go on, and its record."""

import glob
import json
import math
import time
from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from ..checkpoint import (
    arrays_sha256,
    checkpoint_entries,
    load_checked,
    named_arrays,
    named_parameters,
    read_checkpoint,
)
from ..data.pieces import Pieces
from ..data.view import View
from ..device import versions
from ..evaluation.progress import trend
from ..files import atomic_path, fingerprint, write_json
from ..model.record import (
    Circumstances,
    Configuration,
    EpochRecord,
    EvaluationRecord,
    TrainingFolder,
    TrainingRecord,
    check_resume_state,
)
from ..model.sidecar import Sidecar, check_checkpoint, describe_file, new_sidecar, read_sidecar, sidecar_path
from ..stpm import STPM
from ..utils import LOGGER, InputError, ResumeError

FORMAT = 1
_META = "run_state"


class TrainingRun:
    """What a run has reached, and how that is written and read back.

    Args:
        folder: where its files go.
        view: what of an image the network sees.
        config: what the weights depend on.
        circumstances: what the record says besides.
    """

    def __init__(
        self,
        folder: TrainingFolder,
        stpm: STPM,
        optimiser: nn.Optimizer,
        *,
        view: View,
        config: Configuration,
        circumstances: Circumstances,
    ):
        self.folder = folder
        self.stpm, self.optimiser = stpm, optimiser
        self.view, self.config, self.circumstances = view, config, circumstances
        self.epochs: list[EpochRecord] = []
        self.evaluations: list[EvaluationRecord] = []

    @property
    def epoch(self) -> int:
        """Number of whole epochs trained."""
        return len(self.epochs)

    def record_epoch(
        self, epoch: int, *, loss: float, last_loss: float, seconds: float, held_out_loss: float | None = None
    ) -> None:
        """Append an epoch: mean loss per batch, loss of its last batch, seconds, loss per held-out image if any is."""
        entry: EpochRecord = {
            "epoch": epoch, "loss": loss, "last_batch_loss": last_loss, "seconds": round(seconds, 3)
        }  # fmt: skip
        if held_out_loss is not None:
            entry["held_out_loss"] = held_out_loss
        self.epochs.append(entry)

    def tell_trend(self) -> None:
        """Log what the losses on held-out images say, where some are held out; see ``trend``."""
        losses = [epoch.get("held_out_loss") for epoch in self.epochs]
        told = trend(losses, schedule=self.config.get("lr_schedule"))
        if told:
            LOGGER.info("%s", told)

    def record_evaluation(self, epoch: int, metrics: dict) -> None:
        """Append an evaluation made during training."""
        self.evaluations.append({"epoch": epoch, **metrics})

    def save(self) -> None:
        """Write all files of the run; the resume state last, so that it never runs ahead of the others.

        Raises:
            InputError: a weight is not finite, or a file cannot be written; the files of the epoch before stay.
        """
        self.save_model()
        self.write_record()
        self._save_state()

    def save_model(self) -> None:
        """Write checkpoint and sidecar.

        Raises:
            InputError: as by ``save``.
        """
        # A loss cannot tell: on CPU, ReLU turns NaN to 0, and the loss of a student of zeros is an ordinary number.
        for name, array in named_arrays(self.stpm).items():
            if not np.isfinite(array).all():
                raise InputError(
                    f"{name} is NaN or infinite after epoch {self.epoch}: training diverged; try a "
                    f"smaller --lr of train.py than {self.config['lr']:g}. The checkpoint of the epoch before is kept"
                )
        sidecar = new_sidecar(category=self.folder.category, view=self.view, config=self.config)
        with atomic_path(self.folder.checkpoint) as temporary:
            ms.save_checkpoint(checkpoint_entries(named_parameters(self.stpm)), str(temporary))
            written = describe_file(temporary, name=self.folder.checkpoint.name)
            # before the checkpoint gets its name: where there is no room for it, the earlier pair stays; killed
            # between the two, the earlier checkpoint is still known
            written["replaces"] = self._replaced_sha256(sidecar.config_hash)
            replace(sidecar, checkpoint=written).write(self.folder.checkpoint)

    def _replaced_sha256(self, config_hash: str | None) -> str | None:
        """Return the hash of the present checkpoint if it is of this configuration: the JSON is true of it, too."""
        present = self._present_model()
        return present[1] if present and present[0].config_hash == config_hash else None

    def is_intact(self) -> bool:
        """Tell whether the checkpoint and its JSON are there and belong together."""
        return self._present_model() is not None

    def _present_model(self) -> tuple[Sidecar, str] | None:
        """Return the present checkpoint's sidecar and SHA-256; None if either is missing or the two do not match."""
        try:
            sidecar = read_sidecar(self.folder.checkpoint, category=self.folder.category)
            return (sidecar, check_checkpoint(self.folder.checkpoint, sidecar)) if sidecar else None
        except InputError:
            return None

    def _save_state(self) -> None:
        """Write what a resumed run needs."""
        state = {name: parameter.asnumpy() for name, parameter in self._state().items()}
        meta = {"format": FORMAT, "config": self.config, "epochs": self.epochs, "evaluations": self.evaluations,
                "sha256": arrays_sha256(state)}  # fmt: skip
        state[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with atomic_path(self.folder.resume_state) as temporary:
            ms.save_checkpoint([{"name": n, "data": Tensor(array)} for n, array in state.items()], str(temporary))

    def remove_leftovers(self) -> None:
        """Remove what a killed training left half-written; for the one that holds the folder's lock."""
        for path in (
            self.folder.checkpoint,
            sidecar_path(self.folder.checkpoint),
            self.folder.resume_state,
            self.folder.record,
        ):
            for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp*"):
                left.unlink(missing_ok=True)

    def write_record(self) -> None:
        """Write train.json."""
        content: TrainingRecord = {
            "category": self.folder.category,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "epochs_trained": self.epoch,
            "training_seconds": round(sum(entry["seconds"] for entry in self.epochs), 3),
            **self.circumstances,
            "config": self.config,
            "config_hash": fingerprint(self.config),
            "versions": versions(),
            "epochs": self.epochs,
            "evaluations": self.evaluations,
        }
        write_json(self.folder.record, content)

    def begin(self, *, resume: bool) -> None:
        """Take up the state that ``save`` wrote, or warn of what a new run is going to replace.

        Raises:
            ResumeError: as by ``resume``.
        """
        if resume:
            self.resume()
        elif self.folder.checkpoint.exists():
            LOGGER.warning(
                "warning: %s, of an earlier training, is replaced after the first epoch; "
                "train.py --resume would go on with that training",
                self.folder.checkpoint,
            )

    def resume(self) -> None:
        """Take up the state that ``save`` wrote.

        Raises:
            ResumeError: there is none, it is damaged, or it belongs to a run with another configuration.
        """
        try:
            self._read_state()
        except InputError as error:
            raise ResumeError(str(error)) from error

    def _read_state(self) -> None:
        check_resume_state(self.folder)
        path = self.folder.resume_state
        arrays = read_checkpoint(path)
        meta_bytes = arrays.pop(_META, None)
        if meta_bytes is None:
            raise InputError(f"{path}: not the resume state of a training (it has no entry {_META!r})")
        try:
            meta = json.loads(meta_bytes.astype(np.uint8).tobytes())
            saved_format, saved_config = meta["format"], dict(meta["config"])
            epochs, evaluations = list(meta["epochs"]), list(meta["evaluations"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged resume state ({error!r}); start without --resume") from error
        if saved_format != FORMAT:
            raise InputError(f"{path}: format {saved_format!r}, this program reads format {FORMAT}")
        differing = [
            f"{name} was {saved_config.get(name)!r}, is {self.config.get(name)!r}"
            for name in sorted(saved_config.keys() | self.config.keys())
            if saved_config.get(name) != self.config.get(name)
        ]
        if differing:
            raise InputError(f"--resume: {path} belongs to another configuration: {'; '.join(differing)}")
        if arrays_sha256(arrays) != meta.get("sha256"):
            raise InputError(f"{path}: damaged resume state: not the numbers that were written")
        load_checked(self._state(), arrays, source=str(path))
        self.epochs, self.evaluations = epochs, evaluations

    def _state(self) -> dict[str, Parameter]:
        """Return what changes during training: the student and the optimiser's own state, by unique names."""
        student = {f"student.{name}": parameter for name, parameter in named_parameters(self.stpm.model_s).items()}
        known = {id(parameter) for parameter in student.values()}
        own = {f"optimiser.{p.name}": p for p in self.optimiser.get_parameters() if id(p) not in known}
        return student | own


def begin_run(
    folder: TrainingFolder,
    stpm: STPM,
    optimiser: nn.Optimizer,
    *,
    view: View,
    pieces: Pieces,
    images: int,
    images_sha256: str,
    val_split: float,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
    lr_schedule: str,
    momentum: float,
    weight_decay: float,
    cache_teacher: bool,
    device_target: str,
    data_url: str,
    pre_ckpt_path: str,
    amp_level: str = "O0",
    ranks: int = 1,
    init_from: str | None = None,
    resume: bool = False,
) -> TrainingRun:
    """Return a run, new or resumed: a resumed one must agree in its configuration, circumstances are only recorded.

    So training at a constant rate may go on for more epochs, that along a schedule may not. What is as by default is
    left out of the configuration, so that runs of before there was a choice can go on.

    Args:
        stpm, optimiser: as they are at the beginning.
        view: what of an image the network sees.
        pieces: what of that is trained on at a time.
        images: how many are trained on.
        images_sha256: over them.
        val_split: share that is held out; 0: none is.
        ranks: number of processes that train together.
        init_from: model whose student this one starts from.

    Raises:
        ResumeError: as by ``TrainingRun.resume``.
    """
    config: Configuration = {
        "category": folder.category,
        **view.to_json(),
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "seed": seed,
        "amp_level": amp_level,
        "cache_teacher": cache_teacher,
        "train_images_sha256": images_sha256,
        "teacher_sha256": arrays_sha256(named_arrays(stpm.model_t)),
    }
    if ranks > 1:
        config["ranks"] = ranks
    if val_split:
        config["val_split"] = val_split
    if init_from:
        config["init_sha256"] = arrays_sha256(named_arrays(stpm.model_s))
    if not pieces.is_whole_image:
        config["train_tile"] = list(pieces.size)
    if lr_schedule != "constant":
        config |= {"lr_schedule": lr_schedule, "epochs": epochs}
    trained_on = images * len(pieces)
    circumstances: Circumstances = {
        "device_target": device_target,
        "train_images": images,
        "steps_per_epoch": math.ceil(trained_on / batch_size),
        "epochs_requested": epochs,
        "data_url": data_url,
        "pre_ckpt_path": pre_ckpt_path,
    }
    if init_from:
        circumstances["init_from"] = init_from
    if not pieces.is_whole_image:
        circumstances["train_pieces"] = trained_on
    run = TrainingRun(folder, stpm, optimiser, view=view, config=config, circumstances=circumstances)
    run.begin(resume=resume)
    return run
