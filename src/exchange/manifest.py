"""The contract between pre- and post-processing: which ``.bin`` is which image, and what its map must look like.

A folder that preprocess.py wrote holds one ``<index>_<defect>_<stem>.bin`` per test image, float32 (1, 3, H, W), and
``manifest.json``, which says so once all of them are there. The inference program writes
``<index>_<defect>_<stem>_0.bin``, float32 (1, 1, H, W), for each. Long names are shortened. Nothing is paired by list
order. No mindspore here.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.arrays import told_of_check
from ..data.images import load_image, to_network_input
from ..data.samples import UNLABELLED, Sample, samples_sha256
from ..data.view import View
from ..files import file_sha256, read_json, short_name, write_json
from ..model.sidecar import PREPROCESSING, check_made_for_this_program, note_preprocessing
from ..utils import InputError, core_count

FORMAT = 1
MANIFEST_NAME = "manifest.json"
_FLOAT_BYTES = 4
_UNFINISHED = "unfinished"
# Bytes of a name: with what is added to it here, of a map, and while that is written ("_0.bin.4194304.tmp"), there are
# 248 of the 255 that file systems take.
_LONGEST_NAME = 213


@dataclass(frozen=True)
class Manifest:
    """What is in a folder of network inputs.

    Attributes:
        view: what of an image the inputs show, and at which size.
        samples_sha256: fingerprint of the test images that it was made of.
        names: stems of the ``.bin`` files, in the order of the test images.
        sources: the pictures, below the category's folder or, without labels, the folder of pictures.
        is_labelled: whether it is known which images are defective.
        sha256: of the ``.bin`` files, once they are written.
        earlier: stems of those of the call before, as long as they are being replaced.
        defective: stems of those of images that are known to be defective, once the manifest is read.
    """

    category: str
    view: View
    samples_sha256: str
    names: list[str]
    sources: list[str]
    is_labelled: bool
    sha256: list[str] = field(default_factory=list, compare=False)
    earlier: list[str] = field(default_factory=list, compare=False)
    defective: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def input_bytes(self) -> int:
        """Size of each input file."""
        return 3 * self.map_bytes

    @property
    def map_bytes(self) -> int:
        """Size of each map file."""
        return self.view.size.pixels * _FLOAT_BYTES


def describe(samples: list[Sample], *, category: str, view: View) -> Manifest:
    """Return the manifest that belongs to these images, of which there is at least one."""
    names = [
        short_name(f"{i:05}_{sample.defect}_{sample.path.stem}", _LONGEST_NAME) for i, sample in enumerate(samples)
    ]
    is_labelled = samples[0].defect != UNLABELLED
    root = samples[0].path.parents[2 if is_labelled else 0]  # <root>/test/<defect>/<image>, or <root>/<image>
    sources = [sample.path.relative_to(root).as_posix() for sample in samples]
    return Manifest(category, view, samples_sha256(samples), names, sources, is_labelled)


def write_inputs(folder: Path, samples: list[Sample], manifest: Manifest) -> None:
    """Write the network input of every sample and the manifest; once all are made, those of an earlier call go.

    Raises:
        InputError: an image is unreadable, a file cannot be written, or the folder holds ``.bin`` files that no
            earlier call wrote. The earlier ones stay then.
    """
    earlier = _find_earlier(folder)
    content = _to_json(samples, manifest)
    for stale in folder.glob(f".{_UNFINISHED}*"):  # of a call that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{_UNFINISHED}") as unfinished:
        load = told_of_check(lambda sample: load_image(sample.path, manifest.view))

        def write(sample: Sample, name: str) -> str:
            array = to_network_input(load(sample)[None])  # (1, 3, H, W)
            try:
                array.tofile(Path(unfinished, name))
            except OSError as error:
                raise InputError(f"{folder / name}.bin: cannot be written: {error.strerror or error}") from error
            return hashlib.sha256(array.data).hexdigest()

        with ThreadPoolExecutor(core_count()) as pool:
            for image, sha256 in zip(content["images"], pool.map(write, samples, manifest.names), strict=True):
                image["sha256"] = sha256
        # names what is there and what this call writes, so that the next one may remove both if this one is interrupted
        stems = [name.removesuffix(".bin") for name in sorted(earlier)]
        write_json(folder / MANIFEST_NAME, content | {"complete": False, "earlier": stems})
        for name in earlier:
            (folder / name).unlink()
        for name in manifest.names:
            Path(unfinished, name).replace(folder / f"{name}.bin")
    write_json(folder / MANIFEST_NAME, content | {"complete": True})


def _find_earlier(folder: Path) -> set[str]:
    """Return the names of an earlier call's inputs."""
    path = folder / MANIFEST_NAME
    known = set()
    if os.path.lexists(path):
        manifest = _parse(path, read_json(path))[0]
        known = {f"{name}.bin" for name in manifest.names + manifest.earlier}
    found = {entry.name for entry in folder.glob("*.bin")}
    if found - known:
        raise InputError(f"{folder / min(found - known)}: was not written by preprocess.py; choose an empty folder")
    return found


def _to_json(samples: list[Sample], manifest: Manifest) -> dict:
    size = manifest.view.size

    def mask_of(sample: Sample) -> str | None:
        if sample.mask_path is None:
            return None
        return sample.mask_path.relative_to(sample.path.parents[2]).as_posix()

    return {
        "format": FORMAT,
        "category": manifest.category,
        **manifest.view.to_json(),
        "preprocessing": PREPROCESSING,
        "input": {"shape": [1, 3, *size], "dtype": "float32"},
        "output": {"shape": [1, 1, *size], "dtype": "float32"},
        "samples_sha256": manifest.samples_sha256,
        "images": [
            {
                "name": name,
                "source": source,
                "defect": sample.defect if manifest.is_labelled else None,
                "label": int(sample.is_defective) if manifest.is_labelled else None,
                "mask": mask_of(sample),
            }
            for sample, name, source in zip(samples, manifest.names, manifest.sources, strict=True)
        ],
    }


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of network inputs.

    Raises:
        InputError: it is missing, damaged, of another format, or of a call that did not finish.
    """
    path = folder / MANIFEST_NAME
    if not os.path.lexists(path):
        raise InputError(f"{path}: is missing; preprocess.py writes it, run that first")
    content = read_json(path)
    manifest, is_complete = _parse(path, content)
    if not is_complete:
        raise InputError(f"{path}: the call of preprocess.py that wrote it did not finish; run it again")
    note_preprocessing(path, content["preprocessing"])
    return manifest


def _parse(path: Path, content: dict) -> tuple[Manifest, bool]:
    """Return the manifest that was read from ``path``, and whether all that it names was written."""
    view = check_made_for_this_program(path, content, expected_format=FORMAT)
    try:
        images = content["images"]
        names = [str(image["name"]) for image in images]
        manifest = Manifest(
            category=str(content["category"]),
            view=view,
            samples_sha256=str(content["samples_sha256"]),
            names=names,
            sources=[str(image["source"]) for image in images],
            is_labelled=all(image["label"] is not None for image in images),
            sha256=[str(image["sha256"]) for image in images],
            earlier=[str(name) for name in content.get("earlier", ())],
            defective=frozenset(str(image["name"]) for image in images if image["label"]),
        )
        is_complete = content["complete"] is True
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error!r}); empty the folder and run preprocess.py again") from error
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{path}: image name {name!r} is not a plain file name")
    return manifest, is_complete


def check_matches(folder: Path, expected: Manifest) -> None:
    """Check that a folder's manifest is the one that belongs to a data set as it is now.

    Raises:
        InputError: it is of another category, image size or set of test images.
    """
    found = read_manifest(folder)
    where = f"{folder / MANIFEST_NAME}: was made"
    if found.category != expected.category:
        raise InputError(f"{where} for category {found.category!r}, not {expected.category!r}")
    if found.view.size != expected.view.size:
        raise InputError(f"{where} for images of {found.view.size} pixels, not {expected.view.size}")
    if found.view != expected.view:
        raise InputError(f"{where} for another region of interest or ignored area; run preprocess.py again")
    if found != expected:
        raise InputError(f"{where} from other test images than the data set holds now; run preprocess.py again")


def check_files(folder: Path, names: list[str], size: int, *, written_by: str) -> None:
    """Check that a folder holds the ``.bin`` files of these names, each of ``size`` bytes, and no others.

    Raises:
        InputError: a file is missing, extra or of another size; the message names it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {written_by} writes it")
    expected = {f"{name}.bin" for name in names}
    found = {entry.name for entry in folder.glob("*.bin")}
    for problem, wrong in (("is missing", expected - found), ("is not in the manifest", found - expected)):
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(f"{folder / min(wrong)}: {problem}{more}; run {written_by} again")
    for name in sorted(expected):
        found_size = (folder / name).stat().st_size
        if found_size != size:
            raise InputError(f"{folder / name}: holds {found_size} bytes, expected {size} (float32)")


def check_inputs(folder: Path) -> None:
    """Check that a folder holds the inputs of its manifest as they were written, to the last bit, and no others.

    Raises:
        InputError: a file is missing, extra, of another size or content; the message names it.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest.names, manifest.input_bytes, written_by="preprocess.py")
    for name, sha256 in zip(manifest.names, manifest.sha256, strict=True):
        if file_sha256(folder / f"{name}.bin") != sha256:
            raise InputError(f"{folder / name}.bin: is damaged, or preprocess.py did not write it; run that again")


def read_maps(folder: Path, manifest: Manifest) -> np.ndarray:
    """Read the maps of all images, in the order of the manifest: float32 (N, H, W).

    Raises:
        InputError: the files are not those of the manifest, or a map holds NaN or infinity.
    """
    one_by_one = iterate_maps(folder, manifest)
    maps = np.empty((len(manifest.names), *manifest.view.size), np.float32)
    for i, one in enumerate(one_by_one):
        maps[i] = one
    return maps


def iterate_maps(folder: Path, manifest: Manifest) -> Iterator[np.ndarray]:
    """Return what ``read_maps`` returns one by one, float32 (H, W); all files are checked at once."""
    names = [f"{name}_0" for name in manifest.names]
    check_files(folder, names, manifest.map_bytes, written_by="the inference program")

    def read(name: str) -> np.ndarray:
        one = np.fromfile(folder / f"{name}.bin", np.float32).reshape(manifest.view.size)
        if not np.isfinite(one).all():
            raise InputError(f"{folder / name}.bin: the map holds NaN or infinity")
        return one

    return map(read, names)
