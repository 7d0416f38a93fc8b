"""Is a data set what it should be? Counts, layout, readability, and images that are in both train and test."""

import contextlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..files import file_sha256
from ..utils import InputError, core_count
from .decoding import REMARKS
from .images import TURNED, load_image, load_mask_and_doubts
from .samples import (
    GROUND_TRUTH,
    TEST,
    Sample,
    check_root,
    layout_problems,
    list_test,
    list_train,
    report_beside_categories,
)
from .view import MIN_SIZE, square

# (train, test) images of each category of MVTec AD (Bergmann et al. 2021, table 1).
OFFICIAL_COUNTS = {
    "bottle": (209, 83),
    "cable": (224, 150),
    "capsule": (219, 132),
    "carpet": (280, 117),
    "grid": (264, 78),
    "hazelnut": (391, 110),
    "leather": (245, 124),
    "metal_nut": (220, 115),
    "pill": (267, 167),
    "screw": (320, 160),
    "tile": (230, 117),
    "toothbrush": (60, 42),
    "transistor": (213, 100),
    "wood": (247, 79),
    "zipper": (240, 151),
}
# the smallest: whether a file can be read does not depend on it
_SMALL = square(MIN_SIZE)


@dataclass
class _Findings:
    """What was found in a category: lines to print, each once and in order, and its samples, None if it has no list."""

    problems: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    train: list[Sample] | None = None
    test: list[Sample] | None = None

    @property
    def counts(self) -> tuple[int | None, int | None, int | None]:
        """The numbers of training images, test images and masks."""
        masks = None if self.test is None else sum(sample.mask_path is not None for sample in self.test)
        return (
            None if self.train is None else len(self.train),
            None if self.test is None else len(self.test),
            masks,
        )


def check_dataset(root: Path) -> list[str]:
    """Check every category below ``root``, print a line each and the problems found; return the problems.

    What is left out or doubtful, but need not be wrong, is printed as a warning.

    Raises:
        InputError: ``root`` is no folder or holds no category.
    """
    categories, nearly = check_root(root)
    whole = _Findings(problems=dict.fromkeys(nearly))
    report_beside_categories(root, categories, whole.warnings.setdefault)
    print(f"{'category':<16}{'train':>7}{'test':>7}{'masks':>7}  {'MVTec AD':<13}problems")
    for category in categories:
        found = _check_category(root, category)
        train, test, masks = ("-" if count is None else count for count in found.counts)
        official = OFFICIAL_COUNTS.get(category)
        expected = f"{official[0]} + {official[1]}" if official else "-"
        if official and official != found.counts[:2] and None not in found.counts:
            found.warnings[f"{category}: {train} + {test} images, MVTec AD has {expected}"] = None
        print(f"{category:<16}{train:>7}{test:>7}{masks:>7}  {expected:<13}{len(found.problems)}")
        for name in ("problems", "warnings", "notes"):
            getattr(whole, name).update(getattr(found, name))
    for kind, lines in (("note", whole.notes), ("warning", whole.warnings), ("problem", whole.problems)):
        for line in lines:
            print(f"{kind}: {line}")
    said = f", warnings: {len(whole.warnings)}" if whole.warnings else ""
    print(f"categories: {len(categories)}, problems: {len(whole.problems)}{said}")
    return list(whole.problems)


def _check_category(root: Path, category: str) -> _Findings:
    found = _Findings()
    folder = root / category
    try:
        found.problems |= dict.fromkeys(layout_problems(folder))
        found.train = list_train(root, category, report=found.warnings.setdefault)
    except InputError as error:
        found.problems[str(error)] = None
    if found.train is not None and not any(map(os.path.lexists, (folder / TEST, folder / GROUND_TRUTH))):
        found.test = []
        found.notes[f"{folder}: has no folder {TEST}; training needs none, test.py does"] = None
    else:
        try:
            found.test = list_test(root, category, report=found.warnings.setdefault)
        except InputError as error:
            found.problems[str(error)] = None
    train, test = found.train or [], found.test or []
    with REMARKS.collected() as remarks:
        unreadable, doubts = _look_at(train + test)
    found.warnings |= dict.fromkeys(doubts)
    found.warnings |= dict.fromkeys(_of_each_kind(remarks, "images"))
    found.problems |= dict.fromkeys(unreadable)
    found.problems |= dict.fromkeys(f"{path}: byte-identical to {other}" for path, other in _duplicates(train, test))
    return found


def _look_at(samples: list[Sample]) -> tuple[list[str], list[str]]:
    """Return what is wrong with the files that cannot be decoded, and what is doubtful in the masks of others."""
    doubts: list[tuple[str, Path, str]] = []

    def problem(sample: Sample) -> str | None:
        try:
            load_image(sample.path, _SMALL)
            if sample.mask_path is not None:
                found = load_mask_and_doubts(
                    sample.mask_files, _SMALL, picture=sample.path, is_good=not sample.is_defective
                )[1]
                doubts.extend((kind, sample.mask_path, doubt) for kind, doubt in found.items())
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(core_count()) as pool:
        unreadable = [found for found in pool.map(problem, samples) if found is not None]
    of_masks = sorted(f"{path}: {doubt}" for kind, path, doubt in doubts if kind != TURNED)
    return unreadable, of_masks + _of_each_kind([doubt for doubt in doubts if doubt[0] == TURNED], "masks")


def _of_each_kind(remarks: list[tuple[str, Path, str]], noun: str) -> list[str]:
    """Return, of each kind, what is said of the first file, and of how many."""
    by_kind: dict[str, dict[Path, str]] = defaultdict(dict)
    for kind, path, sentence in sorted(remarks):
        by_kind[kind].setdefault(path, sentence)
    lines = []
    for found in by_kind.values():
        path, sentence = next(iter(found.items()))
        lines.append(f"{path}: {sentence}" + (f" ({len(found)} such {noun})" if len(found) > 1 else ""))
    return lines


def _duplicates(train: list[Sample], test: list[Sample]) -> list[tuple[Path, Path]]:
    """Return test images that are, byte for byte, training images too; only files of one size are read.

    Files that cannot be read are passed over: ``_look_at`` names them.
    """
    train_by_size: dict[int | None, list[Path]] = defaultdict(list)
    for sample in train:
        train_by_size[_size(sample.path)].append(sample.path)
    pairs = []
    digests: dict[Path, str | None] = {}

    def digest(path: Path) -> str | None:
        if path not in digests:
            digests[path] = None
            with contextlib.suppress(InputError):
                digests[path] = file_sha256(path)
        return digests[path]

    for sample in test:
        size = _size(sample.path)
        for candidate in train_by_size[size] if size is not None else ():
            if digest(sample.path) is not None and digest(candidate) == digest(sample.path):
                pairs.append((sample.path, candidate))
    return pairs


def _size(path: Path) -> int | None:
    """Return a file's size; None of what cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return None
