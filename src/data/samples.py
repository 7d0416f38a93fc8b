"""MVTec AD's folder layout -> sorted samples: which picture, of which defect type, with which mask.

Layout of a category (https://www.mvtec.com/company/research/datasets/mvtec-ad):

    <root>/<category>/train/good/*.png
    <root>/<category>/test/<defect type or good>/*.png
    <root>/<category>/ground_truth/<defect type>/<stem>_mask.png

or, where several masks each mark a part (MVTec LOCO), ``ground_truth/<defect type>/<stem>/*.png``. A folder that is
called nearly so is refused, and so is a link in its place that leads nowhere; pictures that are not read are reported
(``src/data/folders.py``).
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..files import file_sha256
from ..utils import InputError
from .folders import (
    Report,
    folders,
    holds_none,
    leads_nowhere,
    left_out,
    pictures,
    report_left_out,
    visible,
    warn_once,
)

TRAIN, TEST, GROUND_TRUTH, GOOD = "train", "test", "ground_truth", "good"
UNLABELLED = "unlabelled"  # in place of a defect type, where none is known
LONGEST_CATEGORY = 200  # bytes, of the 255 that file systems take: files are named after it
# What others call these folders, in lower case, of letters and digits alone: to be named, never taken for them.
_TRAIN_NAMES = {"train", "training", "trainset", "trainingset"}
_TEST_NAMES = {"test", "tests", "testing", "testset", "testimages"}
_TRUTH_NAMES = {"groundtruth", "groundtruths", "gt", "gts", "mask", "masks", "truth", "testmasks", "groundtruthmasks"}
_GOOD_NAMES = {
    *("good", "goods", "ok", "okay", "normal", "normals", "pass", "passed", "healthy", "intact", "flawless", "perfect"),
    *("nodefect", "nodefects", "defectfree", "nondefective", "anomalyfree", "noanomaly", "faultfree", "undamaged"),
    *("良品", "正常", "合格"),
}
_AROUND_GOOD = re.compile(r"^(test|train)(?=.)|(?<=.)(test|train|images?|imgs?|samples?|parts?)$")  # test_good
_UNLABELLED_NAMES = {UNLABELLED, "unlabeled"}
Held = TypeVar("Held")


@dataclass(frozen=True)
class Sample:
    """One picture of a category: its file, its defect type ("good" without one) and its mask, if any.

    The mask is a file, or a folder of files that each mark a part of the defect.
    """

    path: Path
    defect: str
    mask_path: Path | None = None

    @property
    def is_defective(self) -> bool:
        return self.defect != GOOD

    @property
    def has_pixel_truth(self) -> bool:
        """Whether every pixel is known to be good or defective: that of good images is, that of others by a mask."""
        return not self.is_defective or self.mask_path is not None

    @property
    def mask_files(self) -> list[Path]:
        """The files of its mask."""
        if self.mask_path is None:
            return []
        return (pictures(self.mask_path) if self.mask_path.is_dir() else []) or [self.mask_path]


def _images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by stem, sorted by name.

    Raises:
        InputError: two pictures share a stem, so that a mask could belong to either.
    """
    found: dict[str, Path] = {}
    for path in pictures(folder):
        if path.stem in found:
            raise InputError(f"{path}: has the same stem as {found[path.stem].name}; rename one of them")
        found[path.stem] = path
    return found


def list_categories(root: Path) -> list[str]:
    """Return the names of the folders below ``root`` that hold ``train/good``, sorted.

    Raises:
        InputError: ``root`` is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data set folder")
    return [folder.name for folder in folders(root) if _is_category(folder)]


def _is_category(folder: Path) -> bool:
    return (folder / TRAIN / GOOD).is_dir()


def check_root(root: Path) -> tuple[list[str], list[str]]:
    """Return the categories below ``root``, at least one, and what is wrong with the names of folders in all of them.

    Raises:
        InputError: there is no category; the message names what nearly is one.
    """
    categories = list_categories(root)
    problems: list[str] = []
    for folder in visible(root):
        if folder.name in categories:
            with contextlib.suppress(InputError):  # whoever lists it will say so
                problems += layout_problems(folder)
        elif nearly := nearly_category(folder):
            problems.append(nearly)
    if not categories:
        level = _level_hint(root, takes_category=False)
        raise InputError(problems[0] if problems else f"{root}: holds no category (a folder with train/good){level}")
    return categories, problems


def report_beside_categories(root: Path, categories: list[str], report: Report) -> None:
    """Report the pictures below ``root`` that are in no category."""
    report_left_out(root, report, read=categories, takes_pictures=False)


def _plain(name: str) -> str:
    """Return what of a name is left without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def is_good_name(name: str) -> bool:
    """Tell whether a folder or label of this name is, by what people call them, of good images."""
    return _AROUND_GOOD.sub("", _plain(name)) in _GOOD_NAMES


def is_unlabelled_name(name: str) -> bool:
    """Tell whether a name is, however it is written, the one that stands for images without labels."""
    return _plain(name) in _UNLABELLED_NAMES


def _no_folder(path: Path) -> str | None:
    """Say what stands where a folder is expected, if it is none."""
    if leads_nowhere(path):
        return f"{path}: is a link that leads nowhere; mend or remove it"
    if path.is_file():
        return f"{path}: is a file, expected a folder; rename or remove it"
    return None


def nearly_category(folder: Path, good: str = GOOD) -> str | None:
    """Say what a folder that is no category lacks to be one, if it is only a name or the end of a link.

    Args:
        good: what the layout calls the folder of good images.
    """
    with contextlib.suppress(InputError, OSError):  # a folder that cannot be listed may be anybody's
        if not folder.is_dir():
            return _no_folder(folder) if leads_nowhere(folder) else None
        for path in (folder / TRAIN, folder / TRAIN / good):
            if problem := _no_folder(path):
                return problem
        for train in folders(folder):
            for entry in folders(train) if _plain(train.name) in _TRAIN_NAMES else ():
                if is_good_name(entry.name):
                    return f"{entry}: expected the name {TRAIN}/{good}; rename it"
    return None


def layout_problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the names of a category's folders: what would be read as something else, or not at all.

    Also links in their places that lead nowhere, and files.

    Raises:
        InputError: a folder cannot be listed.
    """
    yield from part_problems(folder)
    found = [entry.name for entry in folders(folder)]
    for part in (TRAIN, TEST):
        for entry in folders(folder / part) if part in found else ():
            if entry.name != GOOD and is_good_name(entry.name):
                says = "" if part == TRAIN else " (by its name it would count as a type of defect)"
                yield f"{entry}: expected the name {GOOD}{says}; rename it, or move its images into {GOOD}"


def part_problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a category's folders, whatever layout calls its good images.

    That is nearly right names of the folders themselves, links that lead nowhere, and files where folders belong.

    Raises:
        InputError: a folder cannot be listed.
    """
    found = [entry.name for entry in folders(folder)]
    for part in (TRAIN, TEST, GROUND_TRUTH):
        if problem := _no_folder(folder / part):
            yield problem
    for part in (TEST, GROUND_TRUTH):
        for entry in visible(folder / part) if part in found else ():
            # a file in place of a folder of masks: a link, as systems without links check it out
            is_file = part == GROUND_TRUTH and TEST in found and (folder / TEST / entry.name).is_dir()
            if (leads_nowhere(entry) or is_file) and (problem := _no_folder(entry)):
                yield problem
    for expected, names in ((TRAIN, _TRAIN_NAMES), (TEST, _TEST_NAMES), (GROUND_TRUTH, _TRUTH_NAMES)):
        for name in found:
            is_same_word = _plain(name) == _plain(expected)
            if name != expected and _plain(name) in names and (is_same_word or expected not in found):
                yield f"{folder / name}: expected the name {expected}; rename it, or move it elsewhere"


def _level_hint(root: Path, *, takes_category: bool = True) -> str:
    """Return, to be put behind an error, which other folder seems to be the data set, and which flag goes with it."""
    here = Path(os.path.abspath(root))
    for folder in (here, *here.parents[:2]):  # a category, its train, or its train/good
        if _is_category(folder) and folder != folder.parent:
            what = "it is a category itself" if folder == here else f"it is a part of the category {folder.name!r}"
            flag = f", and --category {folder.name}" if takes_category else ""
            return f"; {what}: give its parent folder {folder.parent}{flag}"
    for folder in folders(root):
        with contextlib.suppress(InputError, OSError):
            if any(map(_is_category, folders(folder))):
                return f"; its folder {folder.name!r} holds categories: give {folder}"
    return ""


def category_folder(root: Path, category: str) -> Path:
    """Return the folder of a category.

    Raises:
        InputError: there is no such category, and the message lists those found; or folders of it are called nearly,
            but not quite, as they must be.
    """
    categories = list_categories(root)
    folder = root / category
    if category not in categories:
        if nearly := nearly_category(folder):
            raise InputError(nearly)
        found = ", ".join(categories) if categories else "none (a category holds a folder train/good)"
        raise InputError(f"{root}: no category {category!r}; found: {found}{_level_hint(root)}")
    if len(os.fsencode(category)) > LONGEST_CATEGORY:
        raise InputError(f"{folder}: rename the category: its name has more than {LONGEST_CATEGORY} bytes")
    for problem in layout_problems(folder):
        raise InputError(problem)
    return folder


def _report_category(folder: Path, report: Report) -> None:
    report_left_out(folder, report, read=(TRAIN, TEST, GROUND_TRUTH), takes_pictures=False)


def list_train(root: Path, category: str, *, report: Report = warn_once) -> list[Sample]:
    """Return the training images of a category, sorted by name; pictures that are left out are reported.

    Raises:
        InputError: the category is missing or its ``train/good`` is empty.
    """
    folder = category_folder(root, category)
    good = folder / TRAIN / GOOD
    samples = [Sample(path, GOOD) for path in _images_by_stem(good).values()]
    if not samples:
        raise holds_none(good)
    _report_category(folder, report)
    report_left_out(folder / TRAIN, report, read=(GOOD,), takes_pictures=False)
    report_left_out(good, report)
    return samples


def list_images(path: Path, *, report: Report = warn_once) -> list[Path]:
    """Return the picture files of a folder, sorted by name, or the one file that ``path`` is.

    Pictures of the folder that are left out are reported.

    Raises:
        InputError: there is no such file or folder, or it holds no picture.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such image or folder of images")
    found = pictures(path)
    if not found:
        raise holds_none(path)
    report_left_out(path, report)
    return found


def list_for_inference(root: Path, category: str) -> list[Sample]:
    """Return the test images of a category or, where ``root`` holds none, the pictures of ``root`` itself.

    Raises:
        InputError: there are none, or the category's test images and masks are not as they must be.
    """
    if _is_data_set(root, category):
        return list_test(root, category)
    return [Sample(path, UNLABELLED) for path in list_images(root)]


def _is_data_set(root: Path, category: str) -> bool:
    """Tell whether a folder is meant to be a data set, be it that something is wrong with it, not one of pictures."""
    folder = root / category
    if not root.is_dir() or _is_category(root):
        return True
    if _is_category(folder) or (folder / TEST).is_dir() or nearly_category(folder):
        return True
    # any other folder of that name may be this program's output, beside the pictures
    return not pictures(root) and bool(folder.is_dir() or list_categories(root) or _level_hint(root))


def hold_out(samples: list[Held], fraction: float, *, seed: int) -> tuple[list[Held], list[Held]]:
    """Split training images into those to train on and those held out, both in the given order.

    Args:
        fraction: share to hold out, rounded to whole images; of a share above 0 at least one image on each side.

    Raises:
        InputError: there are too few images to hold any out.
    """
    if fraction == 0:
        return samples, []
    count = max(1, round(fraction * len(samples)))
    if count >= len(samples):
        raise InputError(f"val_split {fraction}: leaves none of {len(samples)} images to train on")
    held = set(np.random.default_rng((seed, len(samples))).choice(len(samples), count, replace=False).tolist())
    kept = [sample for i, sample in enumerate(samples) if i not in held]
    return kept, [sample for i, sample in enumerate(samples) if i in held]


def _pair_masks(images: dict[str, Path], folder: Path, *, is_good: bool) -> dict[str, Path]:
    """Pair masks with images by stem: ``000_mask.png``, ``000.png`` or a folder ``000`` belongs to ``000.png``.

    Raises:
        InputError: an image has no mask, unless it is good, or a mask no image, or a part of a mask is not read.
    """
    masks: dict[str, Path] = {}
    files = []
    for stem, path in _images_by_stem(folder).items():
        short = stem.removesuffix("_mask")  # unless the image itself is called so
        files.append((stem if stem in images and short not in images else short, path))
    parts = [(entry.name, entry) for entry in folders(folder) if pictures(entry)]
    if not any(name in images for name, _ in parts):
        parts = []  # masks are files, and what lies in folders is something else
    for stem, path in files + parts:
        twin = masks.setdefault(stem, path)
        if twin is not path:
            raise InputError(f"{path}: second mask for one image, besides {twin.name}")
    used = [mask for stem, mask in masks.items() if stem in images]
    for stem in sorted(images.keys() - masks.keys()) if not is_good else ():
        raise InputError(
            f"{folder}: no mask for {images[stem]}; expected {stem}_mask.png{_nearly_mask(folder, stem, used)} "
            "(remove the whole folder if this defect type has no masks)"
        )
    for stem in sorted(masks.keys() - images.keys()):
        raise InputError(f"{masks[stem]}: extra mask, there is no image {stem} to which it belongs")
    for _, path in parts:
        if found := left_out(path):
            raise InputError(f"{path}: {found}; each marks a part of one defect: save it as PNG there, or move it away")
    return masks


def _nearly_mask(folder: Path, stem: str, used: list[Path]) -> str:
    """Return, to be put behind an error, what lies there in place of an image's mask, and is no other image's."""
    wanted = {_plain(stem), _plain(f"{stem}_mask")}
    for entry in visible(folder):
        if entry not in used and {_plain(entry.stem), _plain(entry.name)} & wanted:
            is_empty = entry.is_dir() and not pictures(entry)
            return f", found the folder {entry.name} without masks" if is_empty else f", found {entry.name}"
    return ""


def list_test(root: Path, category: str, *, report: Report = warn_once) -> list[Sample]:
    """Return the test images of a category, sorted by defect type and name; pictures that are left out are reported.

    An absent mask folder leaves a defect type without masks; one that is only partly filled is an error.

    Raises:
        InputError: the category, its test folder or an image is missing, or masks and images do not pair.
    """
    folder = category_folder(root, category)
    test, truth = folder / TEST, folder / GROUND_TRUTH
    if not test.is_dir():
        raise InputError(f"{test}: no such folder; evaluation needs test images")
    samples = []
    defects = [entry.name for entry in folders(test)]
    for defect in defects:
        if is_unlabelled_name(defect):
            raise InputError(f"{test / defect}: this name stands for images without labels; rename the folder")
        images = _images_by_stem(test / defect)
        if not images:
            raise holds_none(test / defect)
        report_left_out(test / defect, report)
        masks: dict[str, Path] = {}
        if (truth / defect).is_dir():
            masks = _pair_masks(images, truth / defect, is_good=defect == GOOD)
            report_left_out(truth / defect, report, read=[mask.name for mask in masks.values()])
        samples += [Sample(path, defect, masks.get(stem)) for stem, path in images.items()]
    if not samples:
        raise InputError(f"{test}: holds no folder of images")
    if truth.is_dir():
        for mask_folder in folders(truth):
            if mask_folder.name not in defects:
                raise InputError(f"{mask_folder}: extra masks, there is no folder {test / mask_folder.name}")
        report_left_out(truth, report, read=defects, takes_pictures=False)
    _report_category(folder, report)
    report_left_out(test, report, read=defects, takes_pictures=False)
    return samples


def samples_sha256(samples: list[Sample], *, with_masks: bool = False) -> str:
    """Return the SHA-256 over names and contents of the sample files: has the data set changed since?

    Not sizes: all uncompressed pictures of one camera have the same.

    Raises:
        InputError: a file cannot be read, or is a link that leads nowhere.
    """
    files = [(sample.defect, sample.path) for sample in samples]
    if with_masks:
        for sample in samples:
            for path in sample.mask_files:
                files.append(("mask" if path == sample.mask_path else f"mask/{path.parent.name}", path))
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for (kind, path), sha256 in zip(files, pool.map(file_sha256, (path for _, path in files)), strict=True):
            digest.update(os.fsencode(f"{kind}/{path.name}:{sha256}\n"))
    return digest.hexdigest()
