"""Folder layouts other than MVTec AD's -> which image is of which category, part and defect type, with which masks.

``src.data.convert`` makes MVTec AD's layout of them. Each reader's docstring says what the layout is, and by which
source. Nothing is guessed: what is not as it says becomes a problem, what it leaves out a remark.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..utils import InputError
from .folders import visible
from .images import IMAGE_SUFFIXES
from .samples import GOOD, GROUND_TRUTH, TEST, TRAIN, is_good_name, nearly_category, part_problems

VALIDATION = "validation"
_PARTS = {"train": TRAIN, "test": TEST, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION}
_NAMED = 3  # files that a remark names


@dataclass(frozen=True)
class Item:
    """One image, where it belongs, and its masks, which together mark its defects.

    Attributes:
        part: ``TRAIN``, ``TEST`` or ``VALIDATION``.
        kind: its defect type, or ``GOOD``.
        where: line of a table that names it, for messages; empty where it was found in a folder.
    """

    category: str
    part: str
    kind: str
    path: Path
    masks: tuple[Path, ...] = ()
    where: str = ""


@dataclass
class Layout:
    """What was found in a data set.

    Attributes:
        base: folder that the images lie below.
        named: folders that are read by name, about which no remark is due.
        problems: what is not as it must be.
        remarks: what was left out, or decided for want of a statement.
        masks_hold_labels: whether each value of a mask but 0 stands for a kind of defect.
    """

    base: Path
    named: tuple[Path, ...] = ()
    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    masks_hold_labels: bool = False

    def images(self, folder: Path) -> list[Path]:
        """Return the picture files of a folder, sorted by name; remark on all else that is in it."""
        if not folder.is_dir():
            self.problems.append(f"{folder}: no such folder")
            return []
        found: list[Path] = []
        others: list[Path] = []
        for path in visible(folder):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
            (found if is_image else others).append(path)
        self.leave_out(folder, others)
        if not found:
            self.problems.append(f"{folder}: holds no image ({' '.join(IMAGE_SUFFIXES)})")
        return found

    def leave_out(self, folder: Path, paths: Sequence[Path]) -> None:
        """Remark that entries of a folder are left out, but for those that are, or hold, what is read by name."""
        paths = [path for path in paths if not any(path in (one, *one.parents) for one in self.named)]
        if paths:
            names = ", ".join(path.name for path in paths[:_NAMED]) + (", ..." if len(paths) > _NAMED else "")
            self.remarks.append(f"{folder}: left out {len(paths)} of its entries: {names}")

    def pair_by_stem(self, images: Iterable[Path], folder: Path) -> dict[Path, tuple[Path, ...]]:
        """Return the mask of each image: that of ``000.bmp`` is ``000.png`` or ``000_mask.png``, of any suffix."""
        if not folder.is_dir():
            self.problems.append(f"{folder}: no such folder of masks")
            return {}
        by_stem: dict[str, Path] = {}
        for path in images:
            if (twin := by_stem.setdefault(path.stem, path)) is not path:
                self.problems.append(f"{path}: has the same stem as {twin}, a mask in {folder} could be of either")
        masks: dict[Path, tuple[Path, ...]] = {}
        for mask in self.images(folder):
            owner = by_stem.get(mask.stem) or by_stem.get(mask.stem.removesuffix("_mask"))
            if owner is None:
                self.problems.append(f"{mask}: extra mask, there is no image {mask.stem.removesuffix('_mask')}")
            elif owner in masks:
                self.problems.append(f"{mask}: second mask for one image, besides {masks[owner][0].name}")
            else:
                masks[owner] = (mask,)
        self.problems += [
            f"{path}: has no mask in {folder}; expected {path.stem}.png or {path.stem}_mask.png there"
            for path in by_stem.values()
            if path not in masks
        ]
        return masks

    def pair_by_folder(self, images: Iterable[Path], folder: Path) -> dict[Path, tuple[Path, ...]]:
        """Return the masks of each image: those of ``000.png`` are all that lie in the folder ``000``."""
        entries = {path.name: path for path in visible(folder) if path.is_dir()}
        self.leave_out(folder, [path for path in visible(folder) if path.name not in entries])
        masks: dict[Path, tuple[Path, ...]] = {}
        for path in images:
            if own := entries.pop(path.stem, None):
                masks[path] = tuple(self.images(own))
            else:
                self.problems.append(f"{path}: has no mask; expected {folder / path.stem / '000.png'}")
        self.problems += [f"{path}: extra masks, there is no image {path.name}" for path in entries.values()]
        return masks


def read_folder(
    source: Path, *, category: str, good: str, test_good: str | None, defects: Sequence[tuple[str, str | None]]
) -> Layout:
    """Read loose folders, each of one kind of image, as anomalib's ``Folder`` does.

    https://github.com/open-edge-platform/anomalib, src/anomalib/data/datasets/image/folder.py: its ``normal_dir``,
    ``normal_test_dir``, ``abnormal_dir`` and ``mask_dir``.

    Args:
        source: the folder that the others are below; one elsewhere may be given by its whole path.
        category: name of the category.
        good: folder of the good images for training.
        test_good: folder of other good images, for the test.
        defects: folders of defective images, which give their defect types their names, each with the folder of
            their masks or None. Several may share a folder of masks.
    """
    names = [good, test_good, *(part for defect in defects for part in defect)]
    found = Layout(source, tuple(source / name for name in names if name is not None))
    found.items += [Item(category, TRAIN, GOOD, path) for path in found.images(source / good)]
    if test_good is not None:
        found.items += [Item(category, TEST, GOOD, path) for path in found.images(source / test_good)]
    images = {name: found.images(source / name) for name, _ in defects}
    masks: dict[Path, tuple[Path, ...]] = {}
    for folder in dict.fromkeys(folder for _, folder in defects if folder is not None):
        sharing = [path for name, own in defects if own == folder for path in images[name]]
        masks |= found.pair_by_stem(sharing, source / folder)
    for name, paths in images.items():
        kind = (source / name).name
        if kind == GOOD:
            found.problems.append(
                f"{source / name}: is called as good images are, and given by --defect; rename it, or give --test_good"
            )
        found.items += [Item(category, TEST, kind, path, masks.get(path, ())) for path in paths]
    holding = {source, *(one for path in found.named for one in path.parents if source in one.parents)}
    for holder in sorted(path for path in holding if path.is_dir() and path not in found.named):
        found.leave_out(holder, visible(holder))  # of those that are named, it is told already
    return found


def read_btad(source: Path) -> Layout:
    """Read BTAD: https://avires.dimi.uniud.it/papers/btad/btad.zip, Mishra et al. 2021, arXiv 2104.10036.

    Its folder ``BTech_Dataset_transformed`` holds ``01``, ``02`` and ``03``, each with

        train/ok/0000.bmp ...
        test/ok/0000.bmp ...  test/ko/0000.bmp ...
        ground_truth/ko/0000.png ...

    and masks of the image's stem, .png in 01 and 02, .bmp in 03.
    """
    found = Layout(source)
    _read_categories(found, good="ok", pair=found.pair_by_stem)
    return found


def read_loco(source: Path) -> Layout:
    """Read MVTec LOCO AD: https://www.mvtec.com/company/research/datasets/mvtec-loco, Bergmann et al. 2022.

    A category holds

        train/good/000.png ...  validation/good/000.png ...
        test/good/000.png ...  test/logical_anomalies/000.png ...  test/structural_anomalies/000.png ...
        ground_truth/logical_anomalies/000/000.png, 001.png ...

    with one mask or several for an image, whose values but 0 are labels: ``defects_config.json`` lists them.
    """
    found = Layout(source, masks_hold_labels=True)
    _read_categories(found, good=GOOD, pair=found.pair_by_folder)
    return found


def _read_categories(
    found: Layout, *, good: str, pair: Callable[[Iterable[Path], Path], dict[Path, tuple[Path, ...]]]
) -> None:
    """Read every folder below the base that holds ``train/<good>``.

    Raises:
        InputError: there is none.
    """
    inside = visible(found.base)
    folders = [folder for folder in inside if (folder / TRAIN / good).is_dir()]
    if not folders:
        hint = ""
        others = [path for folder in inside for path in folder.glob(f"{TRAIN}/*") if path.name.casefold() == good]
        if (found.base / TRAIN / good).is_dir():
            hint = "; it is a category itself: give its parent folder"
        elif others:
            hint = f"; found {others[0]}: rename it"
        elif below := [folder for folder in inside if any(folder.glob(f"*/{TRAIN}/{good}"))]:
            hint = f"; did you mean {below[0]}?"
        raise InputError(f"{found.base}: holds no category of this layout (a folder with {TRAIN}/{good}){hint}")
    nearly = {
        folder: problem for folder in inside if folder not in folders if (problem := nearly_category(folder, good))
    }
    found.problems += nearly.values()
    found.leave_out(found.base, [folder for folder in inside if folder not in folders and folder not in nearly])
    for folder in folders:
        name, truth = folder.name, folder / GROUND_TRUTH
        found.problems += part_problems(folder)
        parts = (TRAIN, TEST, VALIDATION, GROUND_TRUTH)
        found.leave_out(folder, [path for path in visible(folder) if path.name not in parts])
        found.leave_out(folder / TRAIN, [path for path in visible(folder / TRAIN) if path.name != good])
        found.items += [Item(name, TRAIN, GOOD, path) for path in found.images(folder / TRAIN / good)]
        if (folder / VALIDATION).is_dir():
            found.leave_out(folder / VALIDATION, [p for p in visible(folder / VALIDATION) if p.name != good])
        if (folder / VALIDATION / good).is_dir():
            found.items += [Item(name, VALIDATION, GOOD, path) for path in found.images(folder / VALIDATION / good)]
        entries = visible(folder / TEST) if (folder / TEST).is_dir() else []
        kinds = [path for path in entries if path.is_dir()]
        found.leave_out(folder / TEST, [path for path in entries if path not in kinds])
        for kind in kinds:
            images = found.images(kind)
            if kind.name == GOOD != good:
                found.problems.append(f"{kind}: expected the name {good}; rename it, or move its images into {good}")
            if kind.name == good:
                found.items += [Item(name, TEST, GOOD, path) for path in images]
                continue
            masks = pair(images, truth / kind.name) if (truth / kind.name).is_dir() else {}
            found.items += [Item(name, TEST, kind.name, path, masks.get(path, ())) for path in images]
        known = {kind.name for kind in kinds}
        entries = visible(truth) if truth.is_dir() else []
        found.leave_out(truth, [path for path in entries if path.name == good or not path.is_dir()])
        found.problems += [
            f"{path}: extra masks, there is no folder {folder / TEST / path.name}"
            for path in entries
            if path.is_dir() and path.name != good and path.name not in known
        ]


def read_visa(source: Path) -> Layout:
    """Read VisA: https://github.com/amazon-science/spot-diff, Zou et al. 2022, arXiv 2207.14315.

    ``split_csv/1cls.csv`` has the columns object, split, label, image and mask. It names, for each object, such as
    candle,

        candle/Data/Images/Normal/0000.JPG ...
        candle/Data/Images/Anomaly/000.JPG ...
        candle/Data/Masks/Anomaly/000.png ...

    The values of masks but 0 are labels (utils/id2class.py there); most are so small that they look black.

    Raises:
        InputError: the table cannot be read, or is another one.
    """
    table = source / "split_csv/1cls.csv"
    if not table.is_file():
        below = [path.parent.parent for path in sorted(source.glob("*/split_csv/1cls.csv"))]
        hint = f"; did you mean {below[0]}?" if below else ""
        raise InputError(f"{table}: no such file; expected VisA as it is downloaded, with its tables of splits{hint}")
    found = _read_table(table, base=source, category=None)
    found.masks_hold_labels = True
    named = {path for item in found.items for path in (item.path, *item.masks)}
    categories = sorted({item.category for item in found.items})
    found.leave_out(source, [path for path in visible(source) if path.name not in (*categories, "split_csv")])
    parts = ("", "Data", "Data/Images", "Data/Masks", "Data/Images/Normal", "Data/Images/Anomaly", "Data/Masks/Anomaly")
    for category in categories:
        looked_into = [source / category / part for part in parts]
        for folder in looked_into:
            entries = visible(folder) if folder.is_dir() else []
            found.leave_out(folder, [path for path in entries if path not in named and path not in looked_into])
    return found


# Columns by what they hold: anomalib's names, then VisA's.
_COLUMNS = {
    "image": ("image_path", "image"),
    "mask": ("mask_path", "mask"),
    "label": ("label",),
    "label_index": ("label_index",),
    "split": ("split",),
    "category": ("category", "object"),
}


def read_csv(source: Path, *, category: str | None) -> Layout:
    """Read a table of images, a row each, as anomalib's ``Tabular`` and ``CSV`` do.

    https://github.com/open-edge-platform/anomalib, src/anomalib/data/datasets/image/tabular.py.

    Columns, by name, in any order, separated by commas, semicolons or tabs: ``image_path``, ``label`` ("good" or
    another word for it, or the name of a defect type) or ``label_index`` (0: good, 1: defective), and, if it is
    there, ``split`` (train, test, val), ``mask_path``, and ``category``. VisA's names ``image``, ``mask`` and
    ``object`` stand for image_path, mask_path and category. Paths are relative to the table's folder.

    Args:
        source: the file.
        category: name of the category, where no column says it.

    Raises:
        InputError: the file cannot be read as such a table.
    """
    return _read_table(source, base=source.parent, category=category)


def _read_table(table: Path, *, base: Path, category: str | None) -> Layout:
    if not table.is_file():
        raise InputError(f"{table}: no such file; expected a table of images")
    try:
        text = table.read_text(encoding="utf-8-sig")  # Excel begins it with a byte order mark
        if "\0" in text:
            raise csv.Error("holds a zero byte")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        rows = [(f"{table.name}, line {reader.line_num}", row) for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"{table}: is no UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{table}: not a readable table: {error}") from error
    columns = _columns(table, header, category)
    if not rows:
        raise InputError(f"{table}: names no image; expected a row for each, below the header")
    found = Layout(base)
    unread = [name for name in header if name not in columns.values()]
    if unread:
        found.remarks.append(f"{table}: left out {len(unread)} of its columns: {', '.join(unread)}")
    if "split" not in columns:
        found.remarks.append(f"{table}: has no column split: good images are for training, defective ones for the test")
    for where, row in rows:
        if None in row or None in row.values():
            found.problems.append(f"{where}: has not as many cells as the header, {len(header)}")
            continue
        cells = {what: row[name].strip() for what, name in columns.items()}
        item = _item(cells, base, category, where)
        if isinstance(item, str):
            found.problems.append(f"{where}: {item}")
        else:
            found.items.append(item)
    return found


def _columns(table: Path, header: list[str], category: str | None) -> dict[str, str]:
    """Return the names of the columns, by what they hold."""
    columns: dict[str, str] = {}
    for what, names in _COLUMNS.items():
        there = [name for name in header if name in names]
        if len(there) > 1:
            raise InputError(f"{table}: has several columns for one thing: {', '.join(there)}; keep one")
        if there:
            columns[what] = there[0]
    wanted = []
    if "image" not in columns:
        wanted.append("image_path")
    if "label" not in columns and "label_index" not in columns:
        wanted.append("label or label_index")
    if wanted:
        raise InputError(
            f"{table}: has no column {' and no column '.join(wanted)}; found: {', '.join(header) or 'none'}"
        )
    if category is None and "category" not in columns:
        raise InputError(f"{table}: has no column category or object; give --category")
    if category is not None and "category" in columns:
        raise InputError(f"{table}: its column {columns['category']} names the categories; leave out --category")
    return columns


def _item(cells: dict[str, str], base: Path, category: str | None, where: str) -> Item | str:
    """Return what a row says, or what is wrong with it."""
    if not cells["image"]:
        return "names no image"
    label, index = cells.get("label"), cells.get("label_index")
    if index is not None and index not in ("0", "1"):
        return f"label_index {index!r}; expected 0 (good) or 1 (defective)"
    if label is not None and (not label or label.isdecimal()):
        return f"label {label!r}; expected 'good' or the defect type's name (in a column label_index, 0 is good)"
    is_good = index == "0" if label is None else is_good_name(label)
    if label is not None and index is not None and is_good != (index == "0"):
        return f"label {label!r} and label_index {index} contradict each other"
    if "split" in cells:
        part = _PARTS.get(cells["split"].lower())
        if part is None:
            return f"split {cells['split']!r}; expected train, test or val"
    else:
        part = TRAIN if is_good and "test" not in (label or "").casefold() else TEST
    kind = GOOD if is_good else label or "anomaly"
    mask = cells.get("mask")
    own = cells["category"] if category is None else category
    return Item(own, part, kind, base / cells["image"], (base / mask,) if mask else (), where)
