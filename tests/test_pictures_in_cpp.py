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
from tests.picture_files import bmp, tiff
from tests.test_any_pictures import PICTURES
from tests.test_infer import SOURCE, build, need_compiler
from tests.test_infer import sanitized as sanitized

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
def built(sanitized):
    """Build the tests' programs, with sanitizers; a warning is an error."""
    need_libraries()
    return sanitized("address,undefined", "network_input", "picture_fuzz_test")


@pytest.fixture(scope="module")
def reader(built):
    """The program that writes what the network gets."""
    return built / "network_input"


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


def test_rare_kinds(reader, tmp_path):
    """What a short corpus need not have: packed BMPs, deep TIFFs of which white is 0, and small files of all modes."""
    rng = np.random.default_rng(4)
    row = b"\0\6\x12\x34\x56\0" + b"\4\x9a" + b"\0\0"  # six single numbers, then two of them twice
    contents = {
        "packed.bmp": bmp(32 * row + b"\0\1", bits=4, width=10, compression=2, palette=rng.bytes(64)),
        "deep.tif": tiff(rng.integers(0, 65536, (9, 7, 1)), bits=16, photometric=0),
    }
    contents |= {f"{one.name}.{one.kind[:4]}": one.content for one in PICTURES}
    jobs = [(tmp_path / name, (16, 16), None) for name in contents]
    for path, _, _ in jobs:
        path.write_bytes(contents[path.name])
    different = [
        f"{job[0].name}: {difference}"
        for job, found in zip(jobs, read_in_cpp(reader, jobs), strict=True)
        if (difference := compare(found, read_in_python(*job), is_damaged=False))
    ]
    assert not different, "\n".join(different)


def test_same_words(reader, tmp_path, monkeypatch):
    """What is no picture, or not for this reader, is told as by Python; so is a part that lies outside."""
    monkeypatch.setenv("STPM_MAX_PIXELS", "100")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for suffix in ("png", "jpg", "bmp", "tif"):
        Image.new("RGB", (11, 10)).save(tmp_path / f"large.{suffix}")
    jobs = [(path, (16, 16), None) for path in (*sorted(tmp_path.iterdir()), tmp_path / "none.png")]
    for job, found in zip(jobs, read_in_cpp(reader, jobs), strict=True):
        assert found == read_in_python(*job)
    assert len(jobs) == 9
    Image.new("RGB", (9, 10)).save(tmp_path / "small.png")
    job = (tmp_path / "small.png", (16, 16), (3, 0, 7, 10))
    message = "a part of 7 x 10 pixels at (3, 0) does not lie within an image of 9 x 10"
    assert list(read_in_cpp(reader, [job])) == [message]
    monkeypatch.setenv("STPM_MAX_PIXELS", "1e6")
    assert next(read_in_cpp(reader, [job])) == read_in_python(*job)


def test_photographs(reader, shared):
    """The test images of a real category."""
    paths = sorted((shared / "data/mvtec/bottle/test").glob("*/*.png"))
    assert len(paths) == 83
    jobs = [(path, (256, 256), None) for path in paths[:: 1 if COUNT > 200 else 12]]
    for job, found in zip(jobs, read_in_cpp(reader, jobs), strict=True):
        assert compare(found, read_in_python(*job), is_damaged=False) is None


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A folder of small pictures to be damaged."""
    folder = tmp_path_factory.mktemp("seeds")
    for i, one in enumerate(PICTURES):
        (folder / f"small{i:03}").write_bytes(one.content)
    for number in range(300):
        content = picture(number, largest=24)[1]
        if len(content) < 6000:  # else none of the wide ones
            (folder / f"corpus{number:03}").write_bytes(content)
    return folder


def test_damaged_pictures(built, seeds):
    """Read or refused by name, and no sanitizer finds anything."""
    stdout = build([built / "picture_fuzz_test", seeds, "0", "10000"])
    assert stdout.startswith("10000 inputs, ")


@pytest.mark.slow
def test_million_damaged_pictures(built, seeds):
    """New ones each time: what fails names the seed and the input."""
    stdout = build([built / "picture_fuzz_test", seeds, str(int.from_bytes(os.urandom(4), "big")), "1000000"])
    assert stdout.startswith("1000000 inputs, ")


def test_without_libraries(tmp_path):
    """All else is built as before, and one line says what to install."""
    need_compiler()
    command = ["cmake", "-S", SOURCE, "-B", tmp_path, "-DCMAKE_DISABLE_FIND_PACKAGE_TIFF=ON"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message = "PNG, JPEG and TIFF cannot be read by what is built: apt install libpng-dev libjpeg-dev libtiff-dev\n"
    assert done.stderr == message
    targets = build(["cmake", "--build", tmp_path, "--target", "help"])
    assert "stpm" in targets
    assert "unit_tests" in targets
    for name in ("stpm_pictures", "stpm_inspect", "stpm_c"):
        assert name not in targets
