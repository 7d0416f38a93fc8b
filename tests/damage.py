"""What can be wrong with a file, as functions from the folder of a scene to the damage done in it.

Paths are given relative to that folder. Also here: a full disk, and another user.
"""

import contextlib
import json
import os
import resource
import shutil
import stat
import struct
import zlib

import numpy as np
from PIL import Image

NOBODY = 65534
LARGE = 1_000_000  # bytes


def put(path, content):
    """The file has this content, text or bytes; what stood there is gone."""

    def damage(place):
        remove(path)(place)
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def both(first, second):
    return lambda place: (first(place), second(place))


def remove(path):
    def damage(place):
        target = place / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    return damage


def copy(source, target):
    def damage(place):
        if (place / source).is_dir():
            shutil.copytree(place / source, place / target)
        else:
            put(target, (place / source).read_bytes())(place)

    return damage


def cut(path):
    """The second half of the file is missing."""

    def damage(place):
        content = (place / path).read_bytes()
        put(path, content[: len(content) // 2])(place)

    return damage


def shorten(path, size):
    """This many bytes are missing at the end of the file."""
    return lambda place: put(path, (place / path).read_bytes()[:-size])(place)


def flip(path):
    """One bit in the middle of the file is another."""

    def damage(place):
        content = bytearray((place / path).read_bytes())
        content[len(content) // 2] ^= 1
        put(path, bytes(content))(place)

    return damage


def folder(path):
    """A folder stands where a file should."""

    def damage(place):
        remove(path)(place)
        (place / path).mkdir()

    return damage


def loop(path):
    """A link that leads to itself."""

    def damage(place):
        remove(path)(place)
        (place / path).symlink_to((place / path).name)

    return damage


def pipe(path):
    """A pipe that nobody writes to stands where a file should."""

    def damage(place):
        remove(path)(place)
        os.mkfifo(place / path)

    return damage


def deny(path):
    """Nobody may read or write it; for root, the scene is entered as another user."""
    return lambda place: (place / path).chmod(0)


def read_only(path):
    return lambda place: (place / path).chmod(0o555)


def edit(path, **changes):
    """Top-level entries of a JSON file are others."""

    def damage(place):
        put(path, json.dumps(json.loads((place / path).read_text()) | changes))(place)

    return damage


def replace(path, old, new):
    """A text in the file is another."""

    def damage(place):
        text = (place / path).read_text()
        assert old in text
        put(path, text.replace(old, new))(place)

    return damage


def picture(path, array, **options):
    """Another picture, from an array or in another format than its name says."""

    def damage(place):
        remove(path)(place)
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(place / path, **options)

    return damage


def empty(path):
    return lambda place: [entry.unlink() for entry in (place / path).iterdir()]


def png_header(width, height):
    """A PNG that is said to be this large, and ends where its pixels would begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    beginning = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return beginning + struct.pack(">I", 1000) + b"IDAT"


def float_map(size, value):
    """The bytes of a map with this value somewhere."""
    array = np.ones((size, size), np.float32)
    array[3, 4] = value
    return array.tobytes()


@contextlib.contextmanager
def another_user():
    """What the block does is subject to permissions, even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond ``size`` bytes: a write then fails as on a full disk. Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(place):
    """Everything below a folder: content of files, targets of links; not the locks, nor empty folders.

    Of large files it is told by what changes with every write to them, which need not be read: hundreds of rows would
    spend their time on that.
    """
    found = {}
    for root, folders, names in os.walk(place):
        for name in folders + names:
            path = os.path.join(root, name)
            about = os.lstat(path)
            key = os.path.relpath(path, place)
            if stat.S_ISLNK(about.st_mode):
                found[key] = os.readlink(path)
            elif stat.S_ISREG(about.st_mode) and not name.endswith(".lock"):
                if about.st_size > LARGE:
                    found[key] = (about.st_ino, about.st_size, about.st_mtime_ns)
                elif os.access(path, os.R_OK):
                    with open(path, "rb") as file:
                        found[key] = file.read()
                else:
                    found[key] = about.st_size
    return found
