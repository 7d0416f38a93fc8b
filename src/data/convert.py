"""Make a data set in MVTec AD's layout, of links, from one in another layout.

    python -m src.data.convert --layout btad BTech_Dataset_transformed data/btad

Written whole or not at all: a data set in which anything does not pair is refused. ``src.data.layouts`` reads the
layouts. Whether pictures can be read is the next command's to tell: ``python -m src.dataset --check TARGET``.
"""

import argparse
import errno
import os
import shlex
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .. import __version__
from ..files import LONGEST_NAME, make_output_folder, removed_on_sigterm
from ..utils import LOGGER, InputError, command, core_count, run_entry_point
from .decoding import decoded
from .images import IMAGE_SUFFIXES, load_labels
from .layouts import (
    VALIDATION,
    Item,
    Layout,
    read_btad,
    read_csv,
    read_folder,
    read_loco,
    read_visa,
)
from .samples import GOOD, LONGEST_CATEGORY, TEST, TRAIN, is_good_name, is_unlabelled_name

_SHOWN = 10  # problems that are printed
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without them answer


def join_masks(paths: tuple[Path, ...]) -> np.ndarray:
    """Join an image's masks, whose values but 0 are labels: bool (H, W).

    Raises:
        InputError: a mask cannot be read, or they are not of one size.
    """
    joint: np.ndarray | None = None
    for path in paths:
        mask = load_labels(path)
        if joint is None:
            joint = np.zeros(mask.shape, bool)
        elif joint.shape != mask.shape:
            raise InputError(f"{path}: is not as large as {paths[0]}, the other mask of its image")
        joint |= mask != 0
    if joint is None:
        raise ValueError("no mask to join")
    return joint


def names_of(layout: Layout) -> dict[Item, str]:
    """Return the stem that each image gets; where images of one folder would share it, it tells their folders, too.

    A stem that is still shared becomes one of the layout's problems.
    """
    folders: dict[tuple[str, str, str], list[Item]] = defaultdict(list)
    for item in layout.items:
        folders[item.category, item.part, item.kind].append(item)
    names: dict[Item, str] = {}
    for items in folders.values():
        count: dict[str, int] = defaultdict(int)
        for item in items:
            count[item.path.stem] += 1
        taken: dict[str, Item] = {}
        for item in items:
            path = item.path
            if count[path.stem] > 1:
                below = path.relative_to(layout.base) if path.is_relative_to(layout.base) else path
                parts = [part for part in below.with_suffix("").parts if part not in (path.anchor, "..")]
                names[item] = "_".join(parts)
                if len(os.fsencode(names[item] + path.suffix)) > LONGEST_NAME:
                    layout.problems.append(f"{_place(item)}: its folders' names make its own too long; rename it")
            else:
                names[item] = path.stem
            if (twin := taken.setdefault(names[item], item)) is not item:
                layout.problems.append(f"{_place(item)}: has the same stem as {twin.path}; rename one of them")
    return names


def _place(item: Item) -> str:
    return f"{item.where}: {item.path}" if item.where else str(item.path)


def check(layout: Layout) -> None:
    """Add what is wrong with a layout's items to its problems: missing files, masks that do not pair, bad names."""
    if not layout.items and not layout.problems:
        layout.problems.append(f"{layout.base}: holds no image")
    seen: dict[str, Item] = {}
    by_kind: dict[tuple[str, str], list[Item]] = defaultdict(list)
    trained = {item.category for item in layout.items if item.part == TRAIN}
    for item in layout.items:
        problems = [
            problem for path in (item.path, *item.masks) if (problem := _file_problem(path, is_mask=path != item.path))
        ]
        for path in (item.path, *item.masks):
            if (twin := seen.setdefault(os.path.normpath(path), item)) is not item:
                problems.append(f"{path}: is named twice, also for {_place(twin)}")
        if item.kind != GOOD and item.part != TEST:
            problems.append(f"{item.path}: is defective ({item.kind}); only good images are for {item.part}")
        if item.kind == GOOD and item.masks:
            problems.append(f"{item.path}: is good and has a mask, {item.masks[0]}; leave it out")
        layout.problems += [f"{item.where}: {problem}" if item.where else problem for problem in problems]
        by_kind[item.category, item.kind].append(item)
    for category, kind in by_kind:
        for name in (category, kind):
            if not name or name.startswith(".") or "/" in name or "\0" in name:
                layout.problems.append(f"{name!r}: cannot be the name of a folder; rename the category or defect type")
        for noun, name, longest in (("category", category, LONGEST_CATEGORY), ("defect type", kind, LONGEST_NAME)):
            if len(os.fsencode(name)) > longest:
                layout.problems.append(f"{name!r}: has more than {longest} bytes; rename the {noun}")
        if is_unlabelled_name(kind):
            layout.problems.append(f"{kind!r}: stands for images without labels; rename the defect type")
        if kind != GOOD and is_good_name(kind):
            layout.problems.append(f"{kind!r}: is a name for good images, and here that of a defect type; rename it")
        if category not in trained:
            layout.problems.append(f"category {category!r}: has no good images for training")
            trained.add(category)
    for (category, kind), items in by_kind.items():
        without = [item for item in items if not item.masks]
        if kind != GOOD and len(without) < len(items):
            layout.problems += [
                f"{_place(item)}: has no mask, and others of {category}, {kind}, have" for item in without if item.where
            ]


def _file_problem(path: Path, *, is_mask: bool) -> str | None:
    """Return what is wrong with a file as far as its name and presence tell."""
    noun = "mask" if is_mask else "image"
    if not path.is_file():
        if path.is_symlink():
            return f"{path}: is a link that leads nowhere"
        return f"{path}: no such {noun} file" + ("; write its path with '/'" if "\\" in str(path) else "")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"{path}: is no {noun} of a kind that is read ({' '.join(IMAGE_SUFFIXES)})"
    return None


def _to_join(layout: Layout) -> set[Item]:
    """Return the items whose masks must be joined into one, or would be read as something else if they were linked.

    Masks that cannot be read, or mark nothing, are added to the problems.
    """
    items = [item for item in layout.items if item.masks] if layout.masks_hold_labels else []

    def look(item: Item) -> bool | str:
        try:
            joint = join_masks(item.masks)
        except InputError as error:
            return str(error)
        if not joint.any():
            return f"{item.masks[0]}: marks nothing: all its values are 0; leave its image out, or mark the defect"
        return len(item.masks) > 1 or not _is_read_as(item.masks[0], joint)

    with ThreadPoolExecutor(core_count()) as pool:
        answers = list(pool.map(look, items))
    layout.problems += [answer for answer in answers if isinstance(answer, str)]
    return {item for item, answer in zip(items, answers, strict=True) if answer is True}


def _is_read_as(path: Path, joint: np.ndarray) -> bool:
    """Tell whether a mask of labels, as it is, would be read as what it marks, 255 there and 0 elsewhere.

    Not so if there are several labels, or one label all over the image, or a palette that makes it black.
    """
    try:
        with decoded(path, "mask") as mask:
            return np.array_equal(np.asarray(mask), np.where(joint, 255, 0))
    except InputError:
        return False


def convert(layout: Layout, target: Path, *, copy: bool = False) -> None:
    """Write a data set in MVTec AD's layout: links to the files of another, and joint masks where need be.

    Links are relative, so that both stay together when the folder that holds them is moved, or seen under another
    path, as in a container.

    Args:
        layout: what to write.
        target: a folder that is not there, or empty.
        copy: copy the files instead.

    Raises:
        InputError: something does not pair, or the folder cannot be written; it holds nothing then.
    """
    check_target(target)
    check(layout)
    names = names_of(layout)
    joined = set() if layout.problems else _to_join(layout)
    if layout.problems:
        for problem in layout.problems[:_SHOWN]:
            print(f"problem: {problem}", file=sys.stderr)
        count = len(layout.problems)
        raise InputError(
            f"{layout.base}: nothing written, for {_number(count, 'problem')} ({min(count, _SHOWN)} listed above)"
        )
    was_there = target.exists()
    make_output_folder(target)
    temporary = Path(tempfile.mkdtemp(prefix=".convert.", dir=target))
    place = _copy if copy else _link_from(os.path.realpath(temporary), os.path.realpath(target))
    try:
        with removed_on_sigterm(temporary):
            for item in layout.items:
                folder, name = temporary / item.category, names[item]
                place(item.path, folder / item.part / item.kind / f"{name}{item.path.suffix}")
                if not item.masks:
                    continue
                suffix = ".png" if item in joined else item.masks[0].suffix
                is_short = len(os.fsencode(f"{name}_mask{suffix}")) <= LONGEST_NAME  # without _mask it pairs, too
                mask = folder / "ground_truth" / item.kind / f"{name}{'_mask' if is_short else ''}{suffix}"
                if item in joined:
                    _write_mask(join_masks(item.masks), mask)
                else:
                    place(item.masks[0], mask)
            for folder in sorted(temporary.iterdir()):
                folder.rename(target / folder.name)
    except OSError as error:
        hint = "; it takes no links: give --copy" if error.errno in _NO_LINKS and not copy else ""
        raise InputError(f"{target}: cannot be written: {error.strerror or error}{hint}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not was_there and not any(target.iterdir()):
            target.rmdir()
    _report(layout, joined)


def check_target(target: Path) -> None:
    """Check that a folder is not there, or empty.

    Raises:
        InputError: it holds something, or is a file.
    """
    if target.is_dir():
        found = sorted(entry.name for entry in target.iterdir())
        if found:
            raise InputError(f"{target}: is not empty (it holds {found[0]}); give a new folder")
    elif os.path.lexists(target):
        raise InputError(f"{target}: is there already, and no folder; give a new one")


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)


def _link_from(temporary: str, target: str) -> Callable[[Path, Path], None]:
    """Return what makes a link in the temporary folder that is right once its place is below the target."""

    def link(source: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        final = os.path.join(target, os.path.relpath(os.path.realpath(place.parent), temporary))
        # the link itself, where the source is one: it may be set to another file, of another name
        real = os.path.join(os.path.realpath(source.parent), source.name)
        place.symlink_to(os.path.relpath(real, final))

    return link


def _write_mask(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(path)


def _report(layout: Layout, joined: set[Item]) -> None:
    """Tell what is left out, and how many images became what."""
    for remark in layout.remarks:
        LOGGER.warning("warning: %s", remark)
    for category in sorted({item.category for item in layout.items}):
        own = [item for item in layout.items if item.category == category]
        parts = {part: [item for item in own if item.part == part] for part in (TRAIN, TEST, VALIDATION)}
        kinds: dict[str, int] = defaultdict(int)
        for item in parts[TEST]:
            kinds[item.kind] += 1
        line = f"{category}: {_number(len(parts[TRAIN]), 'training image')}, {_number(len(parts[TEST]), 'test image')}"
        if kinds:
            line += f" ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})"
        line += f", {_number(sum(bool(item.masks) for item in own), 'mask')}"
        if count := sum(item in joined for item in own):
            line += f", {count} of them rewritten"
        if parts[VALIDATION]:
            line += f", {len(parts[VALIDATION])} in {VALIDATION}/{GOOD}"
        LOGGER.info("%s", line)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _defect(text: str) -> tuple[str, str | None]:
    """Parse "DIR" or "DIR=MASK_DIR"."""
    folder, equals, masks = text.partition("=")
    if not folder or (equals and not masks):
        raise argparse.ArgumentTypeError(f"expected DIR or DIR=MASK_DIR, got {text!r}")
    return folder, masks or None


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Its flags are its own, and src.config imports this package: not declared there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"STPM {__version__}")
    parser.add_argument(
        "--layout", required=True, choices=("folder", "btad", "visa", "loco", "csv"), help="layout of SOURCE"
    )
    parser.add_argument("--copy", action="store_true", help="copy the files instead of linking to them")
    parser.add_argument(
        "--category",
        metavar="NAME",
        help="folder: name of the category, default: SOURCE's; csv: where no column has it",
    )
    parser.add_argument("--good", metavar="DIR", help="folder: the good images for training, a folder of SOURCE")
    parser.add_argument("--test_good", metavar="DIR", help="folder: other good images, for the test")
    parser.add_argument(
        "--defect",
        type=_defect,
        metavar="DIR[=MASK_DIR]",
        action="append",
        default=[],
        help="folder: images of a defect type, which is named as their folder, and the folder of their masks, if there "
        "is one; may be given several times",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="data set folder; csv: the table")
    parser.add_argument("target", type=Path, metavar="TARGET", help="data set folder to make")
    args = parser.parse_args(argv)
    for name in ("good", "test_good", "defect"):
        if getattr(args, name) and args.layout != "folder":
            parser.error(f"--{name} is for --layout folder")
    if args.category is not None and args.layout not in ("folder", "csv"):
        parser.error(f"--category is for --layout folder and csv; {args.layout} names its categories itself")
    folders = [folder for folder, _ in args.defect]
    paths = [os.path.normpath(folder) for folder in folders]
    if twice := sorted({folder for folder in paths if paths.count(folder) > 1}):
        parser.error(f"--defect {twice[0]} is given twice; masks of one defect type are in one folder")
    flags = [("--good", args.good), ("--test_good", args.test_good), *(("--defect", folder) for folder in folders)]
    taken: dict[str, str] = {}
    for flag, folder in flags:
        if folder and (other := taken.setdefault(os.path.normpath(folder), flag)) != flag:
            parser.error(f"{flag} {folder} is the folder of {other}, too; give each its own images")
    if args.layout == "folder" and not args.good:
        parser.error("--good is required with --layout folder: the folder of the good images for training")
    return args


def main(args: argparse.Namespace) -> int:
    """Convert; return the exit status."""
    source: Path = args.source
    check_target(args.target)
    if args.layout != "csv" and not source.is_dir():
        raise InputError(f"{source}: no such data set folder")
    if args.layout == "folder":
        category = args.category or source.resolve().name
        layout = read_folder(source, category=category, good=args.good, test_good=args.test_good, defects=args.defect)
    elif args.layout == "csv":
        layout = read_csv(source, category=args.category)
    else:
        layout = {"btad": read_btad, "visa": read_visa, "loco": read_loco}[args.layout](source)
    convert(layout, args.target, copy=args.copy)
    LOGGER.info("written to %s; next: %s --check %s", args.target, command("dataset"), shlex.quote(str(args.target)))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
