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


# What differs, and why: the first of a pair is Python's word, the second C++'s.
READ_BY_PYTHON_ALONE = (
    "its pixels are CIELab",  # by LittleCMS
    "image file is truncated (0 bytes not processed)",  # a stream of pixels that ends early, on a row's end
)


def words(message):
    """Return a message without what depends on how a file is read: numbers of bytes."""
    message = re.sub(r" \(\d+ bytes not processed\)", "", message)
    return re.sub(r"unpack_from requires a buffer .*", "Truncated File Read", message)


def compare(path, found, expected):
    """Return how two results differ, if they do."""
    if isinstance(found, str) != isinstance(expected, str):
        if isinstance(found, str) and any(reason in found for reason in READ_BY_PYTHON_ALONE):
            return None
        return f"{path}: C++ {found if isinstance(found, str) else 'reads it'}; Python " + (
            expected if isinstance(expected, str) else "reads it"
        )
    if isinstance(found, str):
        return None if words(found) == words(expected) else f"words: {found} | {expected}"
    for one, other in zip(found[:2], expected[:2], strict=True):
        if one != other:
            return f"{path}: {one} | {other}"
    if not np.array_equal(found[2], expected[2]):
        return f"{path}: {np.sum(found[2] != expected[2])} of {found[2].size} values differ"
    return None


def test_corpus(reader, tmp_path):
    """All formats, depths, alphas, orientations, compressions; whole, cut, resized; damaged ones."""
    jobs = []
    for number in range(COUNT):
        suffix, content = picture(number)
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content)
        try:
            with decoded(path, "RGB") as image:
                jobs.append((path, *size_and_box(number, *image.size)))
        except InputError:
            jobs.append((path, (16, 16), None))
    different, read = [], 0
    for job, found in zip(jobs, read_in_cpp(reader, jobs), strict=True):
        expected = read_in_python(*job)
        read += not isinstance(expected, str)
        if difference := compare(job[0], found, expected):
            different.append(difference)
    print(f"{COUNT} pictures, {read} read, {len(different)} differ")
    assert not different, "\n".join(different)
    assert COUNT / 2 < read < COUNT
