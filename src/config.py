"""Every command-line flag, declared once; entry points pick those that they need. docs/flags.md is made from it."""

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeVar

from . import __version__
from .data.images import MASK_RULES
from .data.pieces import DEFAULT_TILE, WHOLE_PIXELS, parse_tile
from .data.view import ImageSize, parse_area, parse_box, parse_size, parse_training_size
from .device import DEVICE_TARGETS
from .utils import LARGEST

_Kind = TypeVar("_Kind", int, float)


def parse_bool(text: str) -> bool:
    """Parse "True" or "False", in any case."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def _number(
    kind: type[_Kind], minimum: float, *, strict: bool = False, maximum: float | None = None
) -> Callable[[str], _Kind]:
    # beyond these nothing is meant, and not everything below can count or compute
    limit = maximum or (2**31 - 1 if kind is int else LARGEST)

    def parse(text: str) -> _Kind:
        try:
            # Python would also take spaces, underscores and other scripts' digits, which the C++ program does not
            value = kind(text) if re.fullmatch(r"[0-9A-Za-z.+-]+", text) else None
        except ValueError:
            value = None
        if value is not None and (value > minimum if strict else value >= minimum):  # False for nan
            if value <= limit:
                return value
            bound = f"of at most {limit}"
        else:
            bound = f"{'above' if strict else 'of at least'} {minimum}"
        noun = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"expected {noun} {bound}, got {text!r}")

    return parse


def _fraction(text: str) -> float:
    value = _number(float, 0)(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0 and below 1, got {text!r}")
    return value


def _rate(text: str) -> float:
    value = _fraction(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and below 1, got {text!r}")
    return value


def _folder_name(text: str) -> str:
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected the name of a folder, got {text!r}")
    return text


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def _told(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of a flag's text whose ValueErrors are told with the text."""

    def parse_or_tell(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, got {text!r}") from error

    return parse_or_tell


FILE_FORMATS = ("MINDIR", "AIR", "ONNX")
# What --recipe stands for: defaults of other flags. "published" is the model zoo's setting; docs/accuracy.md says how
# "recommended" was found, and what each reaches.
RECIPES: dict[str, dict[str, Any]] = {
    "published": {"epoch": 100, "batch_size": 32, "lr_schedule": "constant"},
    "recommended": {"epoch": 80, "batch_size": 4, "lr_schedule": "cosine"},
}
PUBLISHED = RECIPES["published"]
DEFAULT_EVAL_BATCH_SIZE = 8
DEFAULT_IMAGE_SIZE = ImageSize(256, 256)
MAX_BATCH_SIZE = 4096  # a slip of the finger would take all memory, and other programs with it
_POSITIVE_INT = _number(int, 1)
_COUNT = _number(int, 0)
_BATCH_SIZE = _number(int, 1, maximum=MAX_BATCH_SIZE)
_SWITCH: dict[str, Any] = {"type": parse_bool, "nargs": "?", "const": True, "default": False, "metavar": "True|False"}
FLAGS: dict[str, dict[str, Any]] = {
    # where it runs
    "modelarts": _SWITCH
    | {
        "help": "run on the ModelArts platform: paths that begin with 'obs://' or 's3://', those of report and sample "
        "pictures included, are copied from and to object storage, a model together with the JSON beside it; one run "
        "per container at a time"
    },
    "device_target": {
        "choices": ("auto", *DEVICE_TARGETS),
        "default": "auto",
        "help": "device; auto takes Ascend, then GPU, then CPU. export.py: for MINDIR and ONNX CPU, which computes in "
        "float32",
    },
    "device_id": {
        "type": _COUNT,
        "default": 0,
        "help": "number of the card; ignored on CPU",
    },
    "distributed": _SWITCH
    | {
        "help": "train as one of the ranks that scripts/run_distribute_train.sh starts; msrun then assigns the cards, "
        "and --device_id is ignored"
    },
    "device_num": {"type": _POSITIVE_INT, "help": "how many categories are trained at a time"},
    # what it reads and writes
    "data_url": {"metavar": "DIR", "help": "data set folder, which holds the category folders"},
    "eval_url": {"metavar": "DIR", "help": "data set folder for evaluation; default: --data_url"},
    "category": {
        "type": _folder_name,
        "required": True,
        "help": "category: a folder of the data set, such as bottle",
    },
    "train_url": {
        "metavar": "DIR",
        "default": ".",
        "help": "output folder; results go to its subfolder <category>",
    },
    "pre_ckpt_path": {
        "metavar": "FILE",
        "help": "pretrained ResNet-18 checkpoint (.ckpt) for the teacher, or 'random' for random weights "
        "with batch-norm statistics estimated on the training images",
    },
    "init_from": {
        "metavar": "FILE",
        "help": "checkpoint of an earlier model with the same teacher, as whose student the new one starts; default: "
        "random weights",
    },
    "num_class": {
        "type": _POSITIVE_INT,
        "help": "classes of the pretrained checkpoint's head: 1000 (torchvision) or 1001 (model zoo); the head is not "
        "used, so that a mismatch is only warned about",
    },
    "ckpt_path": {
        "metavar": "FILE",
        "help": "checkpoint that train.py wrote, or a model that export.py made of it (.ckpt, .mindir, .onnx)",
    },
    "ckpt_url": {
        "metavar": "FILE",
        "help": "checkpoint. train.py: another name of --pre_ckpt_path. test.py: another name of --ckpt_path",
    },
    "image_size": {
        "type": _told(parse_size),
        "metavar": "SIZE",
        "help": "size to which images are resized, in pixels: a side, or HEIGHTxWIDTH, multiples of 16. "
        "postprocess.py: must be the manifest's. train.py: also auto:LONGEST, with this longer side and the "
        f"images' aspect ratio; default: the model's own, else {DEFAULT_IMAGE_SIZE}; in train.py: "
        f"{DEFAULT_IMAGE_SIZE}; in postprocess.py: the manifest's",
    },
    "roi": {
        "type": _told(parse_box),
        "metavar": "X,Y,WIDTH,HEIGHT",
        "help": "region of interest, in pixels of the upright image: it alone is looked at; default: the whole image",
    },
    "ignore_mask": {
        "metavar": "FILE",
        "help": "image, as large as the training images, in whose black area nothing counts; default: all counts",
    },
    "train_tile": {
        "type": _told(parse_tile),
        "help": "side of the pieces that images are trained in, in pixels, a multiple of 16; 0: whole images; default: "
        f"{DEFAULT_TILE} where an image has more than {WHOLE_PIXELS} pixels, else 0",
    },
    "out_size": {
        "type": _told(parse_size),
        "metavar": "SIZE",
        "help": "another name of --image_size, as in the model zoo",
    },
    # training
    "recipe": {
        "choices": tuple(RECIPES),
        "default": "published",
        "help": "defaults of --epoch, --batch_size and --lr_schedule. published: 100 epochs of batches of 32 at a "
        "constant rate, as in the model zoo; recommended: 80 epochs of batches of 4 along a cosine, which finds more "
        "in the same time",
    },
    "epoch": {
        "type": _POSITIVE_INT,
        "help": f"number of passes over the training images; default: {PUBLISHED['epoch']}",
    },
    "steps": {
        "type": _POSITIVE_INT,
        "help": "instead of --epoch: number of optimiser steps, rounded up to whole epochs",
    },
    "batch_size": {
        "type": _BATCH_SIZE,
        "help": "train.py: images per optimiser step; the last, smaller batch of an epoch is kept. export.py: images "
        f"per call of the exported model; default: {PUBLISHED['batch_size']}; in export.py: 1",
    },
    "lr": {
        "type": _number(float, 0, strict=True),
        "default": 0.4,
        "help": "learning rate; the loss is a sum over the batch, so that the right rate depends on the batch size",
    },
    "lr_schedule": {
        "choices": ("constant", "cosine"),
        "help": "constant, as published; cosine: up to --lr in the first twentieth of the steps, then down to 0 along "
        f"half a cosine; default: {PUBLISHED['lr_schedule']}",
    },
    "momentum": {"type": _number(float, 0), "default": 0.9, "help": "momentum of SGD (Nesterov)"},
    "weight_decay": {"type": _number(float, 0), "default": 1e-4, "help": "L2 penalty of SGD"},
    "seed": {"type": _COUNT, "default": 1, "help": "seed of the student's weights and of the order of images"},
    "amp_level": {
        "choices": ("O0", "O1", "O2", "O3"),
        "default": "O0",
        "help": "mixed precision: O0 is float32; O2 on CPU is bfloat16, where the processor has AVX512_BF16 or AMX; on "
        "Ascend and GPU a level of mindspore.train.Model",
    },
    "cache_teacher": {
        "choices": ("auto", "on", "off"),
        "default": "auto",
        "help": "compute the teacher's features once and keep them; auto: on for CPU",
    },
    "cache_budget": {
        "type": _number(float, 0),
        "default": 2.0,
        "help": "memory for decoded images and for the teacher's features, in GB each; beyond it they go to a "
        "temporary file in the output folder",
    },
    "eval_interval": {
        "type": _COUNT,
        "default": 0,
        "help": "evaluate on the test images every N epochs, for information; no checkpoint is chosen by it; 0: never",
    },
    "resume": _SWITCH | {"help": "go on from the last whole epoch of an interrupted run in the output folder"},
    # decision
    "val_split": {
        "type": _fraction,
        "default": 0.0,
        "help": "share of train/good that is held out to set the threshold and to watch the loss; 0: train on all, no "
        "threshold",
    },
    "target_fpr": {
        "type": _rate,
        "default": 0.01,
        "help": "share of good images that the threshold may call defective",
    },
    "min_area": {
        "type": _told(parse_area),
        "metavar": "PIXELS|N%",
        "help": "smallest region that makes an image defective, in pixels of the upright image or in percent of what "
        "is seen of it; a score is then the highest level that a region of this area reaches. Kept with the threshold; "
        "default: any pixel, or what is kept",
    },
    "review": {
        "type": _rate,
        "metavar": "SHARE",
        "help": "share of the threshold from which an image is called 'review', for a person to look at, such as 0.8; "
        "default: what training or calibration kept with the threshold, else none",
    },
    "threshold": {
        "type": _number(float, 0, strict=True),
        "help": "anomaly score from which an image is defective; default: the model's own, if it was calibrated",
    },
    "image_path": {
        "metavar": "PATH",
        "help": "an image, or a folder of images. src/calibrate.py: good ones that the model was not trained on",
    },
    "watch": {
        "metavar": "DIR",
        "help": "instead of --image_path: every picture that comes into a folder, until SIGTERM or SIGINT",
    },
    "stdin": _SWITCH | {"help": "instead of --image_path: the paths that come on stdin, one a line"},
    "format": {
        "choices": ("csv", "jsonl"),
        "default": "csv",
        "help": "of --watch and --stdin: what the line is that every picture gets at once",
    },
    "out": {
        "metavar": "FILE",
        "help": "file for these lines; of --watch it is appended to; default: stdout",
    },
    "after": {
        "choices": ("keep", "move", "delete"),
        "default": "keep",
        "help": "what becomes of a watched file that is reported; an unreadable one is not deleted",
    },
    "after_dir": {
        "metavar": "DIR",
        "help": "folder that --after move moves to; default: inspected in the watched folder",
    },
    "journal": {
        "metavar": "FILE",
        "help": "file that says which watched files are reported; default: the name of --out, or of the watched "
        "folder, and .journal",
    },
    "poll_seconds": {
        "type": _number(float, 0, maximum=86400),
        "default": 0.0,
        "help": "look at the watched folder so often, as network shares need it; 0: the system tells",
    },
    "deadline_ms": {
        "type": _number(float, 0, strict=True, maximum=1e9),
        "help": "of --watch and --stdin: mark and count the pictures that took longer, from being taken up to their "
        "line; none is dropped",
    },
    "report_every": {
        "type": _number(int, 0),
        "default": 1000,
        "help": "pictures after which p50, p99 and pictures a second are told on stderr; 0: never",
    },
    "scores": {
        "action": "append",
        "metavar": "FILE",
        "help": "scores.csv. src/monitor.py: of recent images of the line; may be given several times. "
        "src/calibrate.py: instead of --image_path, that the C++ program wrote for good images with this model, on the "
        "device that the threshold is for; no image is read and nothing computed",
    },
    "defect_rate": {
        "type": _fraction,
        "default": 0.1,
        "help": "share of the line's products that may be defective; what of the defective verdicts neither this nor "
        "false alarms explain is taken for a drift",
    },
    "false_alarm_rate": {
        "type": _rate,
        "default": 0.001,
        "help": "probability that one look at an unchanged line says 'drifting'",
    },
    # evaluation
    "eval_batch_size": {
        "type": _BATCH_SIZE,
        "help": f"images per inference call; default: {DEFAULT_EVAL_BATCH_SIZE}, or the exported model's own; "
        f"in train.py: {DEFAULT_EVAL_BATCH_SIZE}",
    },
    "mask_rule": {
        "choices": tuple(MASK_RULES),
        "default": "half",
        "help": "how resized masks become binary: a pixel is defective where the mask covers half of it, all of it "
        "(erode), or any of it (dilate)",
    },
    "save_sample": _SWITCH
    | {
        "help": "test.py: draw one image of each defect type with its mask and its anomaly map. src/predict.py: draw "
        "every image"
    },
    "save_sample_path": {
        "metavar": "DIR",
        "help": "folder of these pictures; default: where the results go; in src/predict.py: 'pictures' in --out_dir",
    },
    "report": {"metavar": "DIR", "help": "write an HTML page on the evaluation, report.html, into this folder"},
    "out_dir": {
        "metavar": "DIR",
        "help": "output folder. test.py: another name of --train_url; default: .; in src/predict.py: predictions",
    },
    # export and inference outside MindSpore
    "ckpt_file": {"metavar": "FILE", "required": True, "help": "checkpoint that train.py wrote (.ckpt)"},
    "file_format": {
        "choices": FILE_FORMATS,
        "default": "MINDIR",
        "help": "format of the exported model; AIR needs an Ascend device",
    },
    "mindir_version": {
        "choices": ("native", "1"),
        "default": "1",
        "help": "version of the format that a MINDIR file bears: 1, which MindSpore Lite 2.0 reads, too, or native, "
        "the one of this MindSpore",
    },
    "data_dir": {
        "metavar": "DIR",
        "required": True,
        "help": "data set folder, which holds the category folders, or a folder of unlabelled images",
    },
    "img_dir": {"metavar": "DIR", "required": True, "help": "folder for the network's inputs and their manifest.json"},
    "mindir_path": {
        "metavar": "FILE",
        "help": "exported model that the inputs are for. preprocess.py: the image size is taken from the JSON beside "
        "it. postprocess.py: its threshold is used, and maps of another model are refused. src/calibrate.py: another "
        "name of --ckpt_path",
    },
    "check": _SWITCH | {"help": "write nothing; fail unless --img_dir holds what would be written"},
    "result_dir": {"metavar": "DIR", "required": True, "help": "folder with the maps that the C++ program wrote"},
    "label_dir": {
        "metavar": "DIR",
        "required": True,
        "help": "folder that preprocess.py wrote: its manifest.json. src/calibrate.py: it tells which of the images of "
        "--scores are good",
    },
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not that there is none: the help says then what is done, or the flag is required."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def resolve_aliases(
    parser: argparse.ArgumentParser, args: argparse.Namespace, name: str, twin: str, *, required: bool = True
) -> None:
    """Make one argument, ``name``, of two flags for one thing, of which one must be given if it is required."""
    first, second = getattr(args, name), getattr(args, twin)
    if first and second and first != second:
        parser.error(f"--{name} and --{twin} are the same flag: give one")
    if required and not first and not second:
        parser.error(f"--{name} is required: {FLAGS[name]['help'].partition(';')[0]}")
    setattr(args, name, first or second)


def require(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """End with a message where a flag is missing that this program needs, though others can do without."""
    for name in names:
        if getattr(args, name) is None:
            parser.error(f"--{name} is required")


def build_parser(
    description: str, names: tuple[str, ...] = (), *, optional: tuple[str, ...] = (), trains: bool = False
) -> argparse.ArgumentParser:
    """Return a parser that knows the named flags and refuses all others, abbreviations included.

    Args:
        optional: those of them that this program can do without, though others cannot.
        trains: whether ``--image_size`` may be one that depends on the training images.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False, formatter_class=_HelpFormatter)
    parser.add_argument("--version", action="version", version=f"STPM {__version__}")
    for name in names:
        is_path = FLAGS[name].get("metavar") in ("DIR", "FILE", "PATH")
        kind: dict[str, Any] = {"type": _path} if is_path else {}
        if name == "image_size" and trains:
            kind["type"] = _told(parse_training_size)
        if name in optional:
            kind["required"] = False
        parser.add_argument(f"--{name}", **FLAGS[name] | kind)
    return parser
