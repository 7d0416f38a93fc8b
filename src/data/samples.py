"""MVTec AD's folder layout -> sorted samples: which picture, of which defect type, with which mask.

Layout of a category (https://www.mvtec.com/company/research/datasets/mvtec-ad):

    <root>/<category>/train/good/*.png
    <root>/<category>/test/<defect type or good>/*.png
    <root>/<category>/ground_truth/<defect type>/<stem>_mask.png
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import file_sha256
from ..utils import InputError
from .images import IMAGE_SUFFIXES

GOOD = "good"
UNLABELLED = "unlabelled"  # in place of a defect type, where none is known


@dataclass(frozen=True)
class Sample:
    """One picture of a category: its file, its defect type ("good" without one) and its mask file, if any."""

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


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error


def _folders(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.is_dir()]


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by stem, sorted by name.

    Raises:
        InputError: two pictures share a stem, so that a mask could belong to either.
    """
    found: dict[str, Path] = {}
    for path in _pictures(folder):
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
    return [folder.name for folder in _folders(root) if (folder / "train" / GOOD).is_dir()]


def category_folder(root: Path, category: str) -> Path:
    """Return the folder of a category.

    Raises:
        InputError: there is no such category; the message lists those found.
    """
    categories = list_categories(root)
    if category not in categories:
        found = ", ".join(categories) if categories else "none (a category holds a folder train/good)"
        raise InputError(f"{root}: no category {category!r}; found: {found}")
    return root / category


def list_train(root: Path, category: str) -> list[Sample]:
    """Return the training images of a category, sorted by name.

    Raises:
        InputError: the category is missing or its ``train/good`` is empty.
    """
    folder = category_folder(root, category) / "train" / GOOD
    samples = [Sample(path, GOOD) for path in _images_by_stem(folder).values()]
    if not samples:
        raise InputError(f"{folder}: holds no image ({' '.join(IMAGE_SUFFIXES)})")
    return samples


def list_images(path: Path) -> list[Path]:
    """Return the picture files of a folder, sorted by name, or the one file that ``path`` is.

    Raises:
        InputError: there is no such file or folder, or it holds no picture.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such image or folder of images")
    found = _pictures(path)
    if not found:
        raise InputError(f"{path}: holds no image ({' '.join(IMAGE_SUFFIXES)})")
    return found


def list_for_inference(root: Path, category: str) -> list[Sample]:
    """Return the test images of a category or, where ``root`` holds none, the pictures of ``root`` itself.

    Raises:
        InputError: there are none, or the category's test images and masks are not as they must be.
    """
    folder = root / category
    # a folder of that name without "test" may be this program's output, beside the pictures
    if (folder / "test").is_dir() or not root.is_dir() or (folder.is_dir() and not _pictures(root)):
        return list_test(root, category)
    return [Sample(path, UNLABELLED) for path in list_images(root)]


def hold_out(samples: list[Sample], fraction: float, *, seed: int) -> tuple[list[Sample], list[Sample]]:
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
        raise InputError(f"--val_split {fraction}: leaves none of {len(samples)} images to train on")
    held = set(np.random.default_rng((seed, len(samples))).choice(len(samples), count, replace=False).tolist())
    kept = [sample for i, sample in enumerate(samples) if i not in held]
    return kept, [sample for i, sample in enumerate(samples) if i in held]


def _pair_masks(images: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Pair masks with images by stem: ``000_mask.png`` or ``000.png`` belongs to ``000.png``.

    Raises:
        InputError: an image has no mask, or a mask no image.
    """
    masks: dict[str, Path] = {}
    for stem, path in _images_by_stem(folder).items():
        twin = masks.setdefault(stem.removesuffix("_mask"), path)
        if twin is not path:
            raise InputError(f"{path}: second mask for one image, besides {twin.name}")
    for stem in sorted(images.keys() - masks.keys()):
        raise InputError(
            f"{folder}: no mask for {images[stem]}; expected {stem}_mask.png "
            "(remove the whole folder if this defect type has no masks)"
        )
    for stem in sorted(masks.keys() - images.keys()):
        raise InputError(f"{masks[stem]}: extra mask, there is no image {stem} to which it belongs")
    return masks


def list_test(root: Path, category: str) -> list[Sample]:
    """Return the test images of a category, sorted by defect type and name.

    An absent mask folder leaves a defect type without masks; one that is only partly filled is an error.

    Raises:
        InputError: the category, its test folder or an image is missing, or masks and images do not pair.
    """
    folder = category_folder(root, category)
    if not (folder / "test").is_dir():
        raise InputError(f"{folder / 'test'}: no such folder; evaluation needs test images")
    samples = []
    defect_folders = _folders(folder / "test")
    for defect_folder in defect_folders:
        if defect_folder.name == UNLABELLED:
            raise InputError(f"{defect_folder}: this name stands for images without labels; rename the folder")
        images = _images_by_stem(defect_folder)
        if not images:
            raise InputError(f"{defect_folder}: holds no image ({' '.join(IMAGE_SUFFIXES)})")
        mask_folder = folder / "ground_truth" / defect_folder.name
        if defect_folder.name == GOOD and mask_folder.is_dir():
            raise InputError(f"{mask_folder}: good images have no masks; remove this folder")
        masks = _pair_masks(images, mask_folder) if mask_folder.is_dir() else {}
        samples += [Sample(path, defect_folder.name, masks.get(stem)) for stem, path in images.items()]
    if not samples:
        raise InputError(f"{folder / 'test'}: holds no folder of images")
    if (folder / "ground_truth").is_dir():
        known = {entry.name for entry in defect_folders}
        for mask_folder in _folders(folder / "ground_truth"):
            if mask_folder.name not in known:
                raise InputError(f"{mask_folder}: extra masks, there is no folder {folder / 'test' / mask_folder.name}")
    return samples


def samples_sha256(samples: list[Sample], *, with_masks: bool = False) -> str:
    """Return the SHA-256 over names and contents of the sample files: has the data set changed since?

    Not sizes: all uncompressed pictures of one camera have the same.

    Raises:
        InputError: a file cannot be read, or is a link that leads nowhere.
    """
    files = [(sample.defect, sample.path) for sample in samples]
    if with_masks:
        files += [("mask", sample.mask_path) for sample in samples if sample.mask_path]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for (kind, path), sha256 in zip(files, pool.map(file_sha256, (path for _, path in files)), strict=True):
            digest.update(os.fsencode(f"{kind}/{path.name}:{sha256}\n"))
    return digest.hexdigest()
