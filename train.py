"""Train the student of STPM on the good images of one category.

Training minimises the loss of ``src/loss.py`` (``fit`` of ``src/training/trainer.py``). An image's anomaly score is the
maximum of its anomaly map; with ``--val_split``, the threshold is set so that a share of ``--target_fpr`` of the good
images reaches it, by those that were held out (``src/evaluation/threshold.py``).
"""

import contextlib
import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src import modelarts
from src.config import (
    DEFAULT_EVAL_BATCH_SIZE,
    DEFAULT_IMAGE_SIZE,
    RECIPES,
    build_parser,
    resolve_aliases,
)
from src.data.arrays import area_in_map, decode_images, decode_masks, left_of, settle_view
from src.data.pieces import Pieces, choose_tile
from src.data.samples import Sample, hold_out, list_test, list_train, samples_sha256
from src.data.view import View
from src.dataset import EpochBatches
from src.device import set_seed, set_up_device
from src.files import check_checkpoint_file, file_sha256, lock_folder, make_output_folder
from src.model.record import TrainingFolder, check_resume_state
from src.model.sidecar import LOCK_PATIENCE, TRAINING_LOCK, check_checkpoint, note_preprocessing, read_sidecar
from src.training import distributed
from src.training.memory import Workload, check_memory
from src.utils import LOGGER, RANDOM_TEACHER, InputError, run_entry_point

if TYPE_CHECKING:
    from src.evaluation.decision import DecisionRule
    from src.stpm import STPM
    from src.training.run import TrainingRun

FLAG_NAMES = (
    "data_url", "category", "pre_ckpt_path", "ckpt_url", "init_from", "train_url", "recipe", "epoch", "steps",
    "batch_size", "lr", "lr_schedule", "momentum", "weight_decay", "seed", "image_size", "roi", "ignore_mask",
    "train_tile", "num_class", "amp_level", "cache_teacher", "cache_budget", "val_split", "target_fpr",
    "min_area", "review", "eval_interval", "eval_url", "eval_batch_size", "mask_rule", "resume", "device_target",
    "device_id", "distributed", "modelarts",
)  # fmt: skip
# Below this many optimiser steps a student has barely begun to follow its teacher, and AUROC is mostly noise: along a
# cosine, on the demo's washers with a random teacher, image AUROC is 0.67 after 24 steps and 0.85 after 60.
FEW_STEPS = {"constant": 300, "cosine": 60}


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0], FLAG_NAMES, trains=True)
    args = parser.parse_args(argv)
    resolve_aliases(parser, args, "pre_ckpt_path", "ckpt_url")
    if args.data_url is None:
        parser.error("--data_url is required: the data set folder")
    if args.epoch is not None and args.steps is not None:
        parser.error("give --epoch or --steps, not both")
    if args.distributed and args.modelarts:
        parser.error("--distributed True works on local paths: not with --modelarts True")
    for name in ("min_area", "review"):
        if getattr(args, name) is not None and not args.val_split:
            parser.error(f"--{name} goes with a threshold, which --val_split sets")
    args.eval_url = args.eval_url or args.data_url
    args.image_size = args.image_size or DEFAULT_IMAGE_SIZE
    for name, value in RECIPES[args.recipe].items():
        if getattr(args, name) is None and not (name == "epoch" and args.steps):
            setattr(args, name, value)
    args.eval_batch_size = args.eval_batch_size or DEFAULT_EVAL_BATCH_SIZE
    return args


@modelarts.staged(inputs=("data_url", "eval_url", "pre_ckpt_path", "init_from", "ignore_mask"), output="train_url")
def main(args: Namespace) -> int:
    """Train; return the exit status: 0, or 128 + the number of the signal that ended it early."""
    # 1. Inputs, checked before the slow imports
    started = time.perf_counter()
    if args.distributed:
        distributed.check_launcher()
    samples, held_out = hold_out(list_train(Path(args.data_url), args.category), args.val_split, seed=args.seed)
    if held_out:
        check_held_out(len(held_out), val_split=args.val_split, target_fpr=args.target_fpr)
    test_samples = list_test(Path(args.eval_url), args.category) if args.eval_interval else []
    if args.pre_ckpt_path != RANDOM_TEACHER:
        check_checkpoint_file(Path(args.pre_ckpt_path))
    folder = TrainingFolder(make_output_folder(Path(args.train_url) / args.category), args.category)
    if args.init_from:
        check_earlier_model(Path(args.init_from), folder, has_held_out=bool(held_out))
    if args.resume:
        check_resume_state(folder)
        note_resumed_preprocessing(folder)
    mask = Path(args.ignore_mask) if args.ignore_mask else None
    view = settle_view(samples, args.image_size, roi=args.roi, ignore_mask=mask)
    min_area = area_in_map(args.min_area, [sample.path for sample in samples], view) if args.min_area else 1
    pieces = Pieces(view, choose_tile(view.size, args.train_tile))
    steps_per_epoch = math.ceil(len(samples) * len(pieces) / args.batch_size)
    # --steps is rounded up to whole epochs
    epochs = math.ceil(args.steps / steps_per_epoch) if args.steps else args.epoch
    if not args.init_from:
        warn_of_few_steps(epochs * steps_per_epoch, args.lr_schedule)

    # 2. Device and images
    device_target = set_up_device(args.device_target, None if args.distributed else args.device_id)
    ranks = distributed.start() if args.distributed else distributed.ALONE
    from src.evaluation.decision import DecisionRule
    from src.resnet import STRIDES
    from src.training import trainer
    from src.training.run import begin_run

    trainer.check_amp_level(args.amp_level, device_target)
    if ranks.is_first:
        lock_folder(folder.path, TRAINING_LOCK, patience=LOCK_PATIENCE)
    use_cache = args.cache_teacher == "on" or (args.cache_teacher == "auto" and device_target == "CPU")
    memory = {"budget_bytes": int(args.cache_budget * 1e9), "spill_folder": folder.path}  # of images and features, each
    if device_target == "CPU":
        work = Workload(
            size=pieces.size,
            batch_size=math.ceil(args.batch_size / ranks.count),
            images=len(samples) * len(pieces),
            cache_features=use_cache,
            budget_bytes=memory["budget_bytes"],
            test_pixels=len(test_samples) * view.size.pixels,
            bfloat16=args.amp_level == "O2",
        )
        check_memory(work)
    images = pieces.cut(decode_images(samples, view=view, **memory), **memory)
    unseen, weight = distributed.shard_of(np.arange(len(held_out)), ranks)  # this rank's share of those held out
    left = left_of(memory, images)
    held_out_images = pieces.cut(decode_images([held_out[i] for i in unseen], view=view, **left), **left)
    LOGGER.info("images: %d of %s, decoded to %dx%d", len(samples), args.category, *view.size)
    if not pieces.is_whole_image:
        LOGGER.info("pieces: %d of %dx%d of each image", len(pieces), *pieces.size)

    # 3. Teacher, student, optimiser; a random teacher's batch-norm statistics are estimated on the images
    set_seed(args.seed)
    stpm = trainer.build_stpm(
        args.pre_ckpt_path,
        images,
        num_class=args.num_class,
        init_from=Path(args.init_from) if args.init_from else None,
        device_target=device_target,
        ranks=ranks,
    )
    rates = trainer.learning_rates(args.lr_schedule, lr=args.lr, steps=epochs * steps_per_epoch)
    optimiser = trainer.build_optimiser(stpm, lr=rates, momentum=args.momentum, weight_decay=args.weight_decay)

    # 4. The run, new or resumed
    run = begin_run(
        folder,
        stpm,
        optimiser,
        view=view,
        pieces=pieces,
        images=len(samples),
        images_sha256=samples_sha256(samples),
        val_split=args.val_split,
        seed=args.seed,
        epochs=epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        lr_schedule=args.lr_schedule,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        amp_level=args.amp_level,
        cache_teacher=use_cache,
        device_target=device_target,
        ranks=ranks.count,
        data_url=args.data_url,
        pre_ckpt_path=args.pre_ckpt_path,
        init_from=args.init_from,
        resume=args.resume,
    )

    # 5. Training
    features = trainer.cached_features(stpm, images, **memory) if use_cache and run.epoch < epochs else ()
    held_out_loss = None
    if held_out and run.epoch < epochs:
        from src.training.held_out import HeldOutLoss

        held_out_loss = HeldOutLoss(
            stpm,
            held_out_images,
            trainer.cached_features(stpm, held_out_images, **left_of(memory, *features)),
            pieces.position_weights(len(unseen), STRIDES),
            ranks=ranks,
            share=weight,
        )
    batches = EpochBatches(
        images,
        features,
        pieces.position_weights(len(samples), STRIDES),
        batch_size=args.batch_size,
        seed=args.seed,
        first_epoch=run.epoch + 1,
    )
    evaluate = None
    if test_samples:
        evaluate = build_evaluation(
            stpm,
            test_samples,
            view=view,
            rule=DecisionRule(min_area=min_area),
            batch_size=args.eval_batch_size,
            mask_rule=args.mask_rule,
            lr=args.lr,
        )
    LOGGER.info("ready after %.1f s; %d of %d epochs are trained", time.perf_counter() - started, run.epoch, epochs)
    received = trainer.fit(
        run,
        batches,
        epochs=epochs,
        lr=rates,
        device_target=device_target,
        amp_level=args.amp_level,
        ranks=ranks,
        held_out_loss=held_out_loss,
        evaluate=evaluate,
        eval_interval=args.eval_interval,
    )

    # 6. The threshold, and the end
    if held_out and run.epoch >= epochs and ranks.is_first:
        set_threshold(
            run,
            held_out,
            target_fpr=args.target_fpr,
            min_area=min_area,
            review=args.review,
            batch_size=args.eval_batch_size,
        )
    # a non-zero exit status of another rank makes msrun kill the first one, which may still be writing
    return report_end(run, epochs, received if ranks.is_first else None)


def check_held_out(count: int, *, val_split: float, target_fpr: float) -> None:
    """Check that the images held out suffice to set a threshold.

    Raises:
        InputError: they do not.
    """
    from src.evaluation.threshold import check_image_count

    try:
        check_image_count(count, target_fpr=target_fpr)
    except ValueError as error:
        raise InputError(
            f"--val_split {val_split:g}: cannot set a threshold by what it holds out: {error}; hold out more, or 0 to "
            "train without a threshold"
        ) from error


def check_earlier_model(path: Path, folder: TrainingFolder, *, has_held_out: bool) -> None:
    """Check the model whose student a new run starts from; warn of what makes the new one less than it seems.

    Raises:
        InputError: it is damaged, or the new run would replace it.
    """
    check_checkpoint_file(path)
    if folder.checkpoint.exists() and path.samefile(folder.checkpoint):
        raise InputError(f"--init_from {path}: this run would replace it; give another --train_url")
    sidecar = read_sidecar(path, category=None)
    if sidecar:
        check_checkpoint(path, sidecar)
        if sidecar.category != folder.category:
            LOGGER.warning("warning: --init_from %s: was trained on %r", path, sidecar.category)
    if has_held_out:
        LOGGER.warning(
            "warning: --val_split with --init_from: of the images held out the earlier model must have been trained on "
            "none, or the threshold becomes too low; else calibrate by others afterwards (python -m src.calibrate)"
        )


def note_resumed_preprocessing(folder: TrainingFolder) -> None:
    """Have it told if the images of a resumed training are now prepared otherwise."""
    with contextlib.suppress(InputError):  # it can be resumed without the checkpoint, and writes that anew
        sidecar = read_sidecar(folder.checkpoint, category=folder.category)
        if sidecar:
            note_preprocessing(folder.checkpoint, sidecar.preprocessing)


def warn_of_few_steps(steps: int, lr_schedule: str) -> None:
    """Warn if a training is too short to be meaningful."""
    if steps < FEW_STEPS[lr_schedule]:
        LOGGER.warning(
            "warning: %d optimiser steps; below %d the result is mostly noise", steps, FEW_STEPS[lr_schedule]
        )


def build_evaluation(
    stpm: "STPM",
    samples: list[Sample],
    *,
    view: View,
    rule: "DecisionRule",
    batch_size: int,
    mask_rule: str,
    lr: float,
) -> Callable[[], dict]:
    """Return a function that computes the metrics of the student at the time of the call.

    Args:
        lr: learning rate, quoted in an error message.
    """
    from src.backend import StpmNetwork
    from src.evaluation.results import score_maps
    from src.model.maps import predict_maps

    images = decode_images(samples, view=view)
    masks = decode_masks(samples, view=view)
    network = StpmNetwork(stpm, view=view)

    def evaluate() -> dict:
        network.refresh_weights()
        maps = predict_maps(network, images, batch_size=batch_size)
        if not np.isfinite(maps).all():
            raise InputError(
                "the anomaly maps hold NaN or infinity: training diverged; "
                f"try a smaller --lr than {lr:g}. The checkpoint of the epoch before is kept"
            )
        return score_maps(maps, masks, samples, scores=rule.scores(maps), mask_rule=mask_rule, counted=view.counted)

    return evaluate


def set_threshold(
    run: "TrainingRun",
    held_out: list[Sample],
    *,
    target_fpr: float,
    min_area: int,
    review: float | None,
    batch_size: int,
) -> None:
    """Set the decision threshold from the held-out good images."""
    from src.backend import StpmNetwork
    from src.detector import Detector
    from src.evaluation.decision import DecisionRule
    from src.model.calibration import NoThresholdError
    from src.model.model_file import ModelFile

    path = run.folder.checkpoint
    # its hash is taken before the scores, so that a replaced checkpoint is noticed
    model = ModelFile(path, None, run.view, batch_size, file_sha256(path))
    network, rule = StpmNetwork(run.stpm, view=run.view), DecisionRule(min_area=min_area)
    detector = Detector(network, view=run.view, batch_size=batch_size, rule=rule, model=model)
    try:
        detector.calibrate([sample.path for sample in held_out], target_fpr, review=review)
    except NoThresholdError as error:
        LOGGER.warning("warning: %s", error)


def report_end(run: "TrainingRun", epochs: int, received: int | None) -> int:
    """Say how the training ended and where the checkpoint is; return the exit status."""
    if received is not None and run.epoch < epochs:
        LOGGER.warning("stopped by signal %d after %d whole epochs; go on with --resume", received, run.epoch)
        return 128 + received
    run.tell_trend()
    LOGGER.info("trained %d epochs: %s", run.epoch, run.folder.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
