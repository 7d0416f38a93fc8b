"""The C++ reader of picture files: the network's input is Python's, byte for byte, and so are the refusals.

More of them: STPM_PICTURES=2000 bash scripts/run_tests.sh tests/test_pictures_in_cpp.py
"""

import os
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from src.data.decoding import REMARKS, decoded
from src.data.images import to_network_input
from src.utils import InputError
from tests.conftest import missing
from tests.picture_corpus import picture, size_and_box
from tests.test_infer import SOURCE, build, need_compiler

COUNT = int(os.environ.get("STPM_PICTURES", "200"))
PACKAGES = ("png.h", "jpeglib.h", "tiffio.h")


def need_libraries():
    """Skip what builds the reader where the libraries for it are missing."""
    need_compiler()
    for header in PACKAGES:
        command = ["c++", "-E", "-include", "stdio.h", "-include", header, "-x", "c++", "/dev/null"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            missing(f"not installed: {header}; apt install libpng-dev libjpeg-dev libtiff-dev")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Build the program that writes what the network gets."""
    need_libraries()
    folder = tmp_path_factory.mktemp("pictures")
    build(["cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror"])
    build(["cmake", "--build", folder, "--target", "network_input"])
    return folder / "network_input"


def read_in_cpp(reader, jobs):
    """Yield what the program makes of jobs: (path, (width, height), box or None): a message, or an array and more."""
    lines = [
        " ".join(map(str, (*size, *(box or (0, 0, 0, 0)), path))) + "\n"
        for path, size, box in jobs
    ]  # fmt: skip
    done = subprocess.run([reader], input="".join(lines).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    content, place = done.stdout, 0
    for _, size, _ in jobs:
        end = content.index(b"\n", place)
        kind, _, rest = content[place:end].decode(errors="replace").partition(" ")
        place = end + 1
        if kind == "error":
            yield rest
            continue
        width, height, remarks, count = map(int, rest.split())
        said = []
        for _ in range(remarks):
            end = content.index(b"\n", place)
            said.append(content[place:end].decode().split(" ", 1))
            place = end + 1
        values = np.frombuffer(content, np.float32, count // 4, place).reshape(3, *size[::-1])
        place += count
        yield (width, height), said, values
    assert place == len(content)


def read_in_python(path, size, box):
    """Do the same by Python's functions."""
    with REMARKS.collected() as remarks:
        try:
            with decoded(path, "RGB") as image:
                whole = image.size
                if box:
                    image = image.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
                lanczos = Image.Resampling.LANCZOS
                resized = image.resize((size[0], image.height), lanczos).resize(size, lanczos)
        except InputError as error:
            return str(error)
        values = to_network_input(np.asarray(resized)[None])[0]
    return whole, [[kind, sentence] for kind, _, sentence in remarks], values


ALONE = "its pixels are CIELab, which Python alone reads"  # by LittleCMS


def words(message):
    """Return a message without what depends on how a file is read: numbers of bytes; the words of Python itself."""
    message = re.sub(r" \(\d+ bytes not processed\)", "", message)
    message = re.sub(r"unpack_from requires a buffer .*", "Truncated File Read", message)
    # colours that are stored one after the other, of kinds for which Pillow has no name
    return re.sub(r"its pixels are .*string index out of range\)", "unknown raw mode for given image mode", message)


def compare(found, expected, *, is_damaged):
    """Return how two results differ, if they do: of an image that is read by one, its values, or the words."""
    if isinstance(found, str) != isinstance(expected, str):
        if isinstance(found, str) and (ALONE in found or is_damaged):
            return None  # libraries differ in what they make of damage; to refuse it is right
        return f"C++: {found if isinstance(found, str) else 'read'}; Python: {expected[:300]}"
    if isinstance(found, str):
        is_same = words(found) == words(expected) or ALONE in found or "its grey and alpha are stored" in found
        return None if is_same or is_damaged else f"C++: {found}; Python: {expected}"
    for one, other in zip(found[:2], expected[:2], strict=True):
        if one != other:
            return f"C++: {one}; Python: {other}"
    different = np.sum(found[2] != expected[2])
    return f"{different} of {found[2].size} values differ" if different else None


def test_corpus(reader, tmp_path):
    """All formats, depths, alphas, orientations, compressions; whole, cut, resized; damaged ones."""
    jobs, damaged = [], []
    for number in range(COUNT):
        suffix, content, is_damaged = picture(number)
        damaged.append(is_damaged)
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content)
        try:
            with decoded(path, "RGB") as image:
                jobs.append((path, *size_and_box(number, *image.size)))
        except InputError:
            jobs.append((path, (16, 16), None))
    different, read, refused, in_other_words, refused_alone = [], 0, 0, 0, 0
    for job, is_damaged, found in zip(jobs, damaged, read_in_cpp(reader, jobs), strict=True):
        expected = read_in_python(*job)
        if difference := compare(found, expected, is_damaged=is_damaged):
            different.append(f"{job[0].name}: {difference}")
        read += not isinstance(found, str)
        refused += isinstance(expected, str)
        in_other_words += isinstance(found, str) and isinstance(expected, str) and words(found) != words(expected)
        refused_alone += isinstance(found, str) and not isinstance(expected, str)
    print(
        f"{COUNT} pictures: {read} read, {refused} refused by both, {in_other_words} of them in other words, "
        f"{refused_alone} by C++ alone, {len(different)} differ"
    )
    assert not different, "\n".join(different)
    assert read > COUNT / 2
    assert in_other_words <= refused / 20
    assert refused_alone <= COUNT / 50
