"""Is a data set what it should be? Counts, layout, readability, and images that are in both train and test."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..files import file_sha256
from ..utils import InputError, core_count
from .images import load_image, load_mask_and_doubts
from .samples import Sample, check_root, layout_problems, list_test, list_train, report_beside_categories

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


def check_dataset(root: Path) -> list[str]:
    """Check every category below ``root``, print a line each and the defects found; return the defects.

    What is left out or doubtful, but need not be wrong, is printed as a warning.

    Raises:
        InputError: ``root`` is no folder or holds no category.
    """
    categories, nearly = check_root(root)
    defects = dict.fromkeys(nearly)  # in order, each once
    warnings: dict[str, None] = {}
    report_beside_categories(root, categories, warnings.setdefault)
    print(f"{'category':<16}{'train':>7}{'test':>7}  {'MVTec AD':<13}defects")
    for category in categories:
        train, test, found, doubts = _check_category(root, category)
        official = OFFICIAL_COUNTS.get(category)
        if official and official != (train, test):
            found.append(f"{category}: {train} + {test} images, MVTec AD has {official[0]} + {official[1]}")
        expected = f"{official[0]} + {official[1]}" if official else "-"
        print(f"{category:<16}{train:>7}{test:>7}  {expected:<13}{len(found)}")
        defects |= dict.fromkeys(found)
        warnings |= dict.fromkeys(doubts)
    for kind, lines in (("warning", warnings), ("defect", defects)):
        for line in lines:
            print(f"{kind}: {line}")
    said = f", warnings: {len(warnings)}" if warnings else ""
    print(f"categories: {len(categories)}, defects: {len(defects)}{said}")
    return list(defects)


def _check_category(root: Path, category: str) -> tuple[int, int, list[str], list[str]]:
    """Return the numbers of train and test images, the defects of a category, and what is left out or doubtful."""
    defects: list[str] = []
    warnings: list[str] = []
    train: list[Sample] = []
    test: list[Sample] = []
    try:
        defects += layout_problems(root / category)
        train = list_train(root, category, report=warnings.append)
    except InputError as error:
        defects.append(str(error))
    try:
        test = list_test(root, category, report=warnings.append)
    except InputError as error:
        defects.append(str(error))
    unreadable, doubts = _look_at(train + test)
    defects += unreadable
    defects += [f"{path}: byte-identical to {other}" for path, other in _duplicates(train, test)]
    return len(train), len(test), list(dict.fromkeys(defects)), warnings + doubts


def _look_at(samples: list[Sample]) -> tuple[list[str], list[str]]:
    """Return what is wrong with the files that cannot be decoded, and what is doubtful in the masks of others."""
    doubts: list[str] = []

    def problem(sample: Sample) -> str | None:
        try:
            load_image(sample.path, 32)
            if sample.mask_path is not None:
                found = load_mask_and_doubts(
                    sample.mask_files, 32, picture=sample.path, is_good=not sample.is_defective
                )[1]
                doubts.extend(f"{sample.mask_path}: {doubt}" for doubt in found.values())
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(core_count()) as pool:
        return [found for found in pool.map(problem, samples) if found is not None], sorted(doubts)


def _duplicates(train: list[Sample], test: list[Sample]) -> list[tuple[Path, Path]]:
    """Return test images that are, byte for byte, training images too; only files of one size are read."""
    train_by_size: dict[int, list[Path]] = defaultdict(list)
    for sample in train:
        train_by_size[sample.path.stat().st_size].append(sample.path)
    pairs = []
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        if path not in digests:
            digests[path] = file_sha256(path)
        return digests[path]

    for sample in test:
        for candidate in train_by_size[sample.path.stat().st_size]:
            if digest(candidate) == digest(sample.path):
                pairs.append((sample.path, candidate))
    return pairs
