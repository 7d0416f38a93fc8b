"""A detector from good images alone, in one call: what ``train.py`` does, without the layout of a data set."""

import hashlib
import math
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FLAGS, MAX_BATCH_SIZE, RECIPES
from ..data.arrays import allocate, fit_view, left_of
from ..data.images import Source, picture_size, source_name
from ..data.pieces import Pieces, choose_tile
from ..data.samples import GOOD, Sample, hold_out, samples_sha256
from ..data.stream import decode
from ..data.view import AutoSize, View, parse_box, parse_training_size
from ..dataset import EpochBatches
from ..detector import Detector, ImageLike, area_in_map, check_share, open_detector, sources
from ..device import set_seed, set_up_device
from ..evaluation.decision import DecisionRule
from ..files import check_checkpoint_file, file_sha256, locked_folder, make_output_folder
from ..model.calibration import NoThresholdError
from ..model.model_file import inspect_model
from ..model.record import TrainingFolder
from ..model.sidecar import LOCK_PATIENCE, TRAINING_LOCK
from ..utils import LOGGER, RANDOM_TEACHER, InputError
from .memory import Workload, check_memory


def train(
    images: str | os.PathLike[str] | Iterable[ImageLike],
    backbone: str | os.PathLike[str],
    *,
    out_dir: str | os.PathLike[str] = "stpm_model",
    category: str = "product",
    image_size: int | str | tuple[int, int] = 256,
    roi: Sequence[int] | None = None,
    recipe: str = "recommended",
    epochs: int | None = None,
    batch_size: int | None = None,
    val_split: float = 0.2,
    target_fpr: float = 0.01,
    min_area: int | str | None = None,
    review: float | None = None,
    seed: int = 1,
    device: str = "auto",
    device_id: int = 0,
) -> Detector:
    """Train a student on good images and set its threshold by some of them; return the detector.

    The same images and values give what ``train.py`` gives, bit for bit on the same machine. The files are those of
    ``train.py``, too: ``Detector.load(out_dir / "product_last.ckpt")`` loads the model again, and ``export.py`` exports
    it. For all that can be chosen besides, and to go on with a training that was interrupted, see ``train.py``.

    Call it in the main thread: the signals that end a training early arrive there. What it logs goes to the logger
    "stpm", which shows nothing unless asked to: ``logging.basicConfig(level=logging.INFO)``.

    Args:
        images: good ones: a folder, or any iterable of what ``Detector`` takes for an image.
        backbone: checkpoint of the pretrained teacher (``.ckpt``, see ``pth2ckpt``), or "random", for trials.
        out_dir: folder of the model's files; those of an earlier training in it are replaced.
        category: what the images are of: the model's files begin with it.
        image_size: a side, (height, width), or "auto:LONGEST"; multiples of 16, in pixels.
        roi: region of interest: x, y, width and height in pixels of the upright image; None: the whole image.
        recipe: "recommended" or "published": defaults of the next two.
        epochs: passes over the images.
        batch_size: images, or pieces of large ones, per step.
        val_split: share of the images that is held out to set the threshold; 0: none is, and there is no threshold.
        target_fpr, min_area, review: as of ``Detector.calibrate``.
        seed: of the student's weights, of the order of images, and of which are held out.
        device, device_id: as of ``Detector.load``.

    Raises:
        InputError: an image is unreadable, the backbone or a value is none of those above, the device is missing, the
            training diverged, or a file cannot be written.
        KeyboardInterrupt: it was interrupted (SIGINT); the checkpoint of the last whole epoch is there. SIGTERM does
            what it does elsewhere, after the step under way: it ends the process, or calls the handler that you set and
            then raises this.
    """
    # 1. Inputs, checked before the slow imports
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r}: expected one of {', '.join(RECIPES)}")
    epochs = _count("epochs", epochs or RECIPES[recipe]["epoch"])
    batch_size = _count("batch_size", batch_size or RECIPES[recipe]["batch_size"], MAX_BATCH_SIZE)
    check_share("target_fpr", target_fpr)
    check_share("review", review)
    if not 0 <= val_split < 1:
        raise InputError(f"val_split {val_split!r}: expected a number of at least 0 and below 1")
    try:
        FLAGS["category"]["type"](category)
    except Exception as error:  # argparse's own
        raise InputError(f"category: {error}") from error
    if str(backbone) != RANDOM_TEACHER:
        check_checkpoint_file(Path(backbone))
    kept, held_out = hold_out(list(sources(images)), val_split, seed=seed)
    if not kept:
        raise InputError("images: are none")
    if held_out:
        from ..evaluation.threshold import check_image_count

        try:
            check_image_count(len(held_out), target_fpr=target_fpr)
        except ValueError as error:
            raise InputError(
                f"val_split {val_split}: cannot set a threshold by what it holds out: {error}; hold out more, or 0 to "
                "train without a threshold"
            ) from error
    view = _settle_view(kept, image_size, roi)
    area = area_in_map(min_area, kept, view) if min_area is not None else 1
    pieces = Pieces(view, choose_tile(view.size, None))
    folder = TrainingFolder(make_output_folder(Path(out_dir)), category)

    # 2. Device and images
    device_target = set_up_device(device, device_id)
    from ..resnet import STRIDES
    from . import trainer
    from .held_out import HeldOutLoss
    from .run import begin_run

    use_cache = device_target == "CPU"
    memory: dict[str, Any] = {
        "budget_bytes": int(FLAGS["cache_budget"]["default"] * 1e9), "spill_folder": folder.path
    }  # fmt: skip
    if use_cache:
        work = Workload(
            size=pieces.size,
            batch_size=batch_size,
            images=len(kept) * len(pieces),
            cache_features=True,
            budget_bytes=memory["budget_bytes"],
        )
        check_memory(work)
    with locked_folder(folder.path, TRAINING_LOCK, patience=LOCK_PATIENCE):
        arrays = pieces.cut(_decode_all(kept, view, **memory), **memory)
        left = left_of(memory, arrays)
        unseen = pieces.cut(_decode_all(held_out, view, **left), **left)

        # 3. Teacher, student, optimiser
        set_seed(seed)
        stpm = trainer.build_stpm(os.fspath(backbone), arrays, device_target=device_target)
        steps = math.ceil(len(arrays) / batch_size)
        schedule = RECIPES[recipe]["lr_schedule"]
        lr, momentum, weight_decay = (FLAGS[name]["default"] for name in ("lr", "momentum", "weight_decay"))
        rates = trainer.learning_rates(schedule, lr=lr, steps=epochs * steps)
        optimiser = trainer.build_optimiser(stpm, lr=rates, momentum=momentum, weight_decay=weight_decay)

        # 4. The run
        run = begin_run(
            folder,
            stpm,
            optimiser,
            view=view,
            pieces=pieces,
            images=len(kept),
            images_sha256=sources_sha256(kept),
            val_split=val_split,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            lr_schedule=schedule,
            momentum=momentum,
            weight_decay=weight_decay,
            cache_teacher=use_cache,
            device_target=device_target,
            data_url=os.fspath(images) if isinstance(images, str | os.PathLike) else "images in memory",
            pre_ckpt_path=os.fspath(backbone),
        )

        # 5. Training
        features = trainer.cached_features(stpm, arrays, **memory) if use_cache else ()
        weights = pieces.position_weights(len(kept), STRIDES)
        held_out_loss = None
        if held_out:
            held_out_loss = HeldOutLoss(
                stpm,
                unseen,
                trainer.cached_features(stpm, unseen, **left_of(memory, *features)),
                pieces.position_weights(len(held_out), STRIDES),
            )
        batches = EpochBatches(arrays, features, weights, batch_size=batch_size, seed=seed, first_epoch=1)
        received = trainer.fit(
            run, batches, epochs=epochs, lr=rates, device_target=device_target, held_out_loss=held_out_loss
        )
        if received is not None:
            # to whom it was for: SIGTERM ends the process, unless the caller handles it, SIGINT is a KeyboardInterrupt
            signal.raise_signal(received)
            raise KeyboardInterrupt
        run.tell_trend()

        # 6. The threshold
        detector = open_detector(
            inspect_model(folder.checkpoint),
            DecisionRule(min_area=area, review=review),
            device_target=device_target,
            device_id=device_id,
        )
        if held_out:
            try:
                detector.calibrate(held_out, target_fpr, review=review)
            except NoThresholdError as error:
                LOGGER.warning("warning: %s", error)
    return detector


def _count(name: str, value: object, maximum: int = 2**31 - 1) -> int:
    if not (isinstance(value, int) and 1 <= value <= maximum):
        raise InputError(f"{name} {value!r}: expected a whole number from 1 to {maximum}")
    return value


def _settle_view(kept: list[Source], image_size: int | str | tuple[int, int], roi: Sequence[int] | None) -> View:
    text = "x".join(map(str, image_size)) if isinstance(image_size, tuple) else str(image_size)
    try:
        size = parse_training_size(text)
    except ValueError as error:
        raise InputError(f"image_size {image_size!r}: {error}") from error
    try:
        box = None if roi is None else parse_box(",".join(map(str, roi)))
    except ValueError as error:
        raise InputError(f"roi {roi!r}: {error}") from error
    if box is None and not isinstance(size, AutoSize):
        return View(size)
    names = [source_name(one, i) for i, one in enumerate(kept)]
    shapes = [picture_size(one, name=name) for one, name in zip(kept, names, strict=True)]
    return fit_view(size, names, shapes, roi=box)


def _decode_all(kept: list[Source], view: View, *, budget_bytes: int, spill_folder: Path) -> np.ndarray:
    images = allocate((len(kept), *view.size, 3), np.uint8, budget_bytes, spill_folder)
    for i, loaded in enumerate(decode(kept, view=view, ahead=16)):
        if loaded.error:
            raise InputError(loaded.error)
        images[i] = loaded.image
    return images


def sources_sha256(kept: list[Source]) -> str:
    """Return the SHA-256 over the images: of files that of train.py."""
    if all(isinstance(one, Path) for one in kept):
        return samples_sha256([Sample(one, GOOD) for one in kept if isinstance(one, Path)])
    digest = hashlib.sha256()
    for one in kept:
        if isinstance(one, Path):
            digest.update(file_sha256(one).encode())
        else:
            array = np.asarray(one)
            digest.update(f"{array.dtype} {array.shape}:".encode() + array.tobytes())
    return digest.hexdigest()
