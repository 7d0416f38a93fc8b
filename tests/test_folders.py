"""Folders as people have them: nearly right names, what is left out, leftovers of systems, names that are too long."""

import errno
import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest

import postprocess
import preprocess
from src.exchange.manifest import read_manifest
from src.files import atomic_path, write_json
from src.utils import InputError

CSV_NAMES = ("_0.bin", "_0.bin.4194304.tmp")  # what the C++ program adds: to the name of a map, and while it is written


def arguments(*words):
    return [str(word) for word in words]


def prepare(data, folder, *flags):
    words = arguments("--data_dir", data, "--img_dir", folder, "--category", "widget", "--image_size", 32, *flags)
    return preprocess.main(preprocess.parse_args(words))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Long names


@pytest.mark.parametrize("letter", ["a", "ü"])
def test_long_names(tree, tmp_path, capsys, letter):
    """Of pictures with the longest names there can be, all that is derived fits; short names stay as they are."""
    length = (255 - len(".png")) // len(os.fsencode(letter)) - 1
    for i in (0, 1):
        path = tree / "widget/test/hole" / f"00{i}.png"
        path.rename(path.with_name(f"{letter * length}{i}.png"))
        mask = tree / "widget/ground_truth/hole" / f"00{i}_mask.png"
        mask.rename(mask.with_name(f"{letter * length}{i}.png"))
    assert prepare(tree, tmp_path / "in") == 0
    assert prepare(tree, tmp_path / "in", "--check") == 0
    names = read_manifest(tmp_path / "in").names
    assert names[:2] == ["00000_good_000", "00001_good_001"]
    assert names[4:] == ["00004_stain_000", "00005_stain_001"]
    assert names[2].startswith(f"00002_hole_{letter * 90}")
    assert len({name.rpartition("-")[2] for name in names[2:4]}) == 2
    (tmp_path / "maps").mkdir()
    for name in names:
        for end in CSV_NAMES:
            (tmp_path / "maps" / (name + end)).touch()
            (tmp_path / "maps" / (name + end)).unlink()
        np.zeros((32, 32), np.float32).tofile(tmp_path / "maps" / f"{name}_0.bin")
    words = ("--data_dir", tree, "--label_dir", tmp_path / "in", "--result_dir", tmp_path / "maps")
    parsed = postprocess.parse_args(arguments(*words, "--category", "widget", "--out_dir", tmp_path / "out"))
    assert postprocess.main(parsed) == 0
    files = [record["file"] for record in json.loads((tmp_path / "out/results.json").read_text())["scores"]]
    assert files[2:4] == [f"hole/{letter * length}{i}.png" for i in (0, 1)]


def test_long_defect_type(tree, tmp_path):
    """Its index and a hash still tell its images apart."""
    for part in ("test", "ground_truth"):
        (tree / "widget" / part / "hole").rename(tree / "widget" / part / ("h" * 255))
    assert prepare(tree, tmp_path / "in") == 0
    names = read_manifest(tmp_path / "in").names
    assert len({*names}) == 6
    assert max(len(name) for name in names) <= 255 - len(CSV_NAMES[1])


def test_earlier_inputs_stay(tree, tmp_path, monkeypatch, refused):
    """Where the new ones cannot be named in the manifest, such as on a full disk."""
    assert prepare(tree, tmp_path / "in") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    (tree / "widget/test/hole/000.png").unlink()
    (tree / "widget/ground_truth/hole/000_mask.png").unlink()

    def fail(path, content):
        raise InputError(f"{path}: cannot be written: {os.strerror(errno.ENOSPC)}")

    with monkeypatch.context() as patch:
        patch.setattr("src.exchange.manifest.write_json", fail)
        words = ("--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget", "--image_size", 32)
        assert "manifest.json: cannot be written: No space left" in refused(preprocess, *words)
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before
    assert prepare(tree, tmp_path / "in") == 0


def test_interrupted_exchange(tree, tmp_path, monkeypatch):
    """Killed between the manifest and the first of the earlier inputs to go: the next call may still remove these."""
    assert prepare(tree, tmp_path / "in") == 0
    (tree / "widget/test/good/001.png").rename(tree / "widget/test/good/002.png")

    def kill(self, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:

        def write_and_kill_next(path, content):
            write_json(path, content)
            patch.setattr(Path, "unlink", kill)

        patch.setattr("src.exchange.manifest.write_json", write_and_kill_next)
        with pytest.raises(KeyboardInterrupt):
            prepare(tree, tmp_path / "in")
    assert prepare(tree, tmp_path / "in") == 0
    names = read_manifest(tmp_path / "in").names
    assert names[1] == "00001_good_002"
    assert names_in(tmp_path / "in") == sorted(f"{name}.bin" for name in names) + ["manifest.json"]


@pytest.mark.parametrize("node", ["n", "n" * 64])
def test_temporary_names(tmp_path, monkeypatch, node):
    """They fit whatever the machine is called, and are told apart."""
    monkeypatch.setattr(platform, "node", lambda: node)
    paths = [tmp_path / f"{'x' * 250}{i}.txt" for i in (0, 1)]
    with atomic_path(paths[0]) as first, atomic_path(paths[1]) as second:
        assert first != second
        assert first.name.startswith(".xxx")
        assert first.name.endswith(f".{node}-{os.getpid()}.tmp.txt")
        for path in (first, second):
            path.write_text("x")
    assert names_in(tmp_path) == sorted(path.name for path in paths)
    with atomic_path(tmp_path / "short.txt") as temporary:
        assert temporary.name == f".short.{node}-{os.getpid()}.tmp.txt"
        temporary.touch()
