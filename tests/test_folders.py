"""Folders as people have them: nearly right names, what is left out, leftovers of systems, names that are too long."""

import errno
import json
import logging
import os
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import postprocess
import preprocess
import test as test_entry
import train
from src import calibrate, dataset, predict
from src.data.arrays import decode_images, decode_masks
from src.data.folders import warn_once
from src.data.samples import list_categories, list_for_inference, list_images, list_test, list_train
from src.data.view import square
from src.exchange.manifest import read_manifest
from src.files import atomic_path, write_json
from src.sweep import __main__ as sweep
from src.utils import InputError
from tests.conftest import make_tree
from tests.plain_model import write_red_model

CSV_NAMES = ("_0.bin", "_0.bin.4194304.tmp")  # what the C++ program adds: to the name of a map, and while it is written


def arguments(*words):
    return [str(word) for word in words]


def prepare(data, folder, *flags):
    words = arguments("--data_dir", data, "--img_dir", folder, "--category", "widget", "--image_size", 32, *flags)
    return preprocess.main(preprocess.parse_args(words))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Nearly right names

NEARLY = [
    ("train/good", "train/Good", "train/Good: expected the name train/good"),
    ("train/good", "train/ok", "train/ok: expected the name train/good"),
    ("train/good", "Train/good", "Train/good: expected the name train/good"),
    ("train/good", "training/normal", "training/normal: expected the name train/good"),
    ("test/good", "test/Good", "test/Good: expected the name good (by its name it would count as a type of defect)"),
    ("test/good", "test/GOOD", "test/GOOD: expected the name good"),
    ("test/good", "test/good ", "test/good : expected the name good"),
    ("test/good", "test/ok", "test/ok: expected the name good"),
    ("test/good", "test/normal", "test/normal: expected the name good"),
    ("test/good", "test/defect-free", "test/defect-free: expected the name good"),
    ("test/good", "test/test_good", "test/test_good: expected the name good"),
    ("test/good", "test/OK images", "test/OK images: expected the name good"),
    ("test/good", "test/良品", "test/良品: expected the name good"),
    ("test/good", "test/normal_test", "test/normal_test: expected the name good"),
    ("test", "Test", "Test: expected the name test"),
    ("test", "testing", "testing: expected the name test"),
    ("ground_truth", "masks", "masks: expected the name ground_truth"),
    ("ground_truth", "gt", "gt: expected the name ground_truth"),
    ("ground_truth", "Ground Truth", "Ground Truth: expected the name ground_truth"),
    ("ground_truth", "groundtruth", "groundtruth: expected the name ground_truth"),
]
BESIDE = [
    ("test/good", "test/ok", "test/ok: expected the name good"),
    ("train/good", "train/Good", "train/Good: expected the name good; rename it, or move its images into good"),
    ("test", "Test", "Test: expected the name test; rename it, or move it elsewhere"),
    ("ground_truth", "Ground_Truth", "Ground_Truth: expected the name ground_truth"),
]


def programs(tree, tmp_path):
    """The command lines that must refuse a category, by the module that they run; those first that end soon."""
    model = write_red_model(tmp_path / "model", size=32)
    about = ("--category", "widget")
    sweep_flags = ("--data_url", tree, "--pre_ckpt_path", "random", "--device_num", 1, "--train_url", tmp_path / "out")
    return [
        (preprocess, "--data_dir", tree, *about, "--img_dir", tmp_path / "in"),
        (test_entry, "--eval_url", tree, *about, "--ckpt_path", model, "--out_dir", tmp_path / "out"),
        (train, "--data_url", tree, *about, "--pre_ckpt_path", "random", "--train_url", tmp_path / "out"),
        (sweep, *sweep_flags),
    ]


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(("right", "wrong", "message"), NEARLY)
def test_nearly(tree, tmp_path, refused, capsys, right, wrong, message, others):
    """Each is refused, with the name that is expected, by every program that reads a category."""
    if others:
        make_tree(tree, category="gadget", train=2)
    (tree / "widget" / wrong).parent.mkdir(exist_ok=True)
    (tree / "widget" / right).rename(tree / "widget" / wrong)
    for module, *words in programs(tree, tmp_path):
        assert refused(module, *words).startswith(f"error: {tree}/widget/{message}"), module
    assert not list((tmp_path / "in").glob("*"))
    check = dataset.parse_args(["--check", str(tree)])
    if right == "train/good" and not others:
        assert message in refused(dataset, "--check", tree)
    else:
        assert dataset.main(check) == 1
        assert f"problem: {tree}/widget/{message}" in capsys.readouterr().out


@pytest.mark.parametrize(("right", "other", "message"), BESIDE)
def test_beside(tree, tmp_path, refused, capsys, right, other, message):
    """Beside the folder of the right name, too."""
    shutil.copytree(tree / "widget" / right, tree / "widget" / other)
    for module, *words in programs(tree, tmp_path):
        assert refused(module, *words).startswith(f"error: {tree}/widget/{message}"), module
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    assert capsys.readouterr().out.count(f"{tree}/widget/{message}") == 1


def test_names_of_defects(tree):
    """What only begins or ends so is the name of a defect type like others."""
    for i, name in enumerate(("not good", "goodish", "nok", "ng", "bad", "Crack", "normal_cut", "test", "part")):
        shutil.copytree(tree / "widget/test/hole", tree / f"widget/test/{name}")
        assert len(list_test(tree, "widget")) == 8 + 2 * i
    shutil.copytree(tree / "widget/ground_truth", tree / "widget/masks")  # beside ground_truth: left out, and said
    assert len(list_test(tree, "widget")) == 24


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("data/widget", "it is a category itself: give its parent folder {data}, and --category widget"),
        ("data/widget/train", "it is a part of the category 'widget': give its parent folder {data}"),
        ("data/widget/train/good", "it is a part of the category 'widget': give its parent folder {data}"),
        ("data/widget/test", "it is a part of the category 'widget': give its parent folder {data}"),
        (".", "its folder 'data' holds categories: give "),
    ],
)
@pytest.mark.parametrize("is_relative", [False, True])
def test_level(tree, tmp_path, refused, monkeypatch, given, hint, is_relative):
    """A data set folder that is one level too high or too low."""
    (tmp_path / "locked").mkdir(mode=0o000)
    monkeypatch.chdir(tmp_path)
    root = Path(given) if is_relative else tmp_path / given
    if is_relative and given == "data/widget":
        monkeypatch.chdir(root)
        root = Path(".")
    hint = hint.format(data=tree)
    without_flag = hint.partition(", and --category")[0]
    for module, *words in programs(root, tmp_path):
        if module is preprocess and given == "data/widget/train/good":
            continue  # a folder of pictures
        said = refused(module, *words)
        assert (without_flag if module is sweep else hint) in said, module
        assert module is not sweep or "--category" not in said
    said = refused(dataset, "--check", root)  # which has no --category either
    assert without_flag in said
    assert "--category" not in said
    assert not (tmp_path / "in").exists()


LINKS = [
    "widget",
    *("widget/train", "widget/train/good", "widget/test", "widget/test/hole"),
    *("widget/ground_truth", "widget/ground_truth/hole"),
]


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("place", LINKS)
def test_dead_links(tree, tmp_path, refused, capsys, place, others):
    """A folder on a disk that is not mounted is missed: without a word it would be a set of fewer images or masks."""
    if others:
        make_tree(tree, category="gadget", train=2)
    shutil.rmtree(tree / place)
    (tree / place).symlink_to(tmp_path / "nowhere", target_is_directory=True)
    message = f"{tree / place}: is a link that leads nowhere; mend or remove it"
    for module, *words in programs(tree, tmp_path):
        assert refused(module, *words) == f"error: {message}", module
    if place in LINKS[:3] and not others:
        assert refused(dataset, "--check", tree) == f"error: {message}"
    else:
        assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
        assert f"\nproblem: {message}\n" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["train", "train/good", "test", "ground_truth", "ground_truth/hole"])
def test_files_for_folders(tree, refused, place):
    """As a system without links checks them out: a file that holds where the link led."""
    shutil.rmtree(tree / "widget" / place)
    (tree / "widget" / place).write_text("../elsewhere")
    with pytest.raises(InputError, match=rf"{place}: is a file, expected a folder"):
        list_train(tree, "widget")


def test_check_without_test(tree, capsys):
    """What is there for training alone is sound; a test folder that is empty, or masks without it, are not."""
    shutil.rmtree(tree / "widget/test")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    shutil.rmtree(tree / "widget/ground_truth")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == ["widget", "6", "0", "0", "-", "0"]
    assert lines[-2:] == [
        f"note: {tree}/widget: has no folder test; training needs none, test.py does",
        "categories: 1, problems: 0",
    ]
    (tree / "widget/test").mkdir()
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1


@pytest.mark.parametrize("place", ["train/good/000.png", "test/hole/000.png", "ground_truth/hole/000_mask.png"])
def test_check_of_dead_links(tree, capsys, place):
    """An image that cannot even be looked at is one problem among others."""
    (tree / "widget" / place).unlink()
    (tree / "widget" / place).symlink_to("nowhere")
    (tree / "widget/test/stain/001.png").write_bytes(b"no picture")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["widget", "6", "6", "4", "-", "2"]
    assert f"{tree}/widget/{place}: " in lines[2] + lines[3]
    assert "stain/001.png: not a readable image" in lines[2] + lines[3]
    assert lines[4:] == ["categories: 1, problems: 2"]


def test_counts_that_are_not_known(tree, capsys):
    """Of a category that cannot be listed: none is not nought."""
    (tree / "widget/test/good").rename(tree / "widget/test/OK")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    assert capsys.readouterr().out.splitlines()[1].split() == ["widget", "-", "-", "-", "-", "1"]


def test_long_category(tree, refused, tmp_path):
    """Its files would not get their names once it is trained."""
    (tree / "widget").rename(tree / ("w" * 201))
    words = ("--data_url", tree, "--category", "w" * 201, "--pre_ckpt_path", "random", "--train_url", tmp_path / "out")
    assert "rename the category: its name has more than 200 bytes" in refused(train, *words)


# What is left out


def warnings_of(caplog, call, *args, **named):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        call(*args, **named)
    return caplog.messages


def put(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


READ = ".png .jpg .jpeg .jpe .jfif .bmp .tif .tiff"
SUFFIXES = ["webp", "gif", "pgm", "ppm", "heic", "avif", "jp2", "dng", "CR2", "WEBP", "dcm", "exr"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_suffixes(tree, caplog, suffix):
    """Counted and named, in every folder of pictures."""
    for folder in ("train/good", "test/good", "test/hole", "ground_truth/hole"):
        put(tree / "widget" / folder / f"x.{suffix}")
    before = [len(list_train(tree, "widget", report=str)), len(list_test(tree, "widget", report=str))]
    assert before == [6, 6]
    said = f"1 picture left out: x.{suffix} (read: {READ}, in the folder itself)"
    folder = tree / "widget"
    assert warnings_of(caplog, list_train, tree, "widget") == [f"warning: {folder}/train/good: {said}"]
    expected = [f"warning: {folder}/{name}: {said}" for name in ("test/good", "test/hole", "ground_truth/hole")]
    assert sorted(warnings_of(caplog, list_test, tree, "widget")) == sorted(expected)
    assert warnings_of(caplog, list_images, folder / "test/hole") == []  # said before
    assert [path.name for path in list_images(folder / "test/good")] == ["000.png", "001.png"]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_without_suffix(tmp_path, caplog, format_):
    """A picture is known by its first bytes."""
    for name in ("000", "000.dat", "000.png~"):
        Image.new("RGB", (40, 48)).save(tmp_path / name, format_)
    Image.new("RGB", (40, 48)).save(tmp_path / "a.png")
    (said,) = warnings_of(caplog, list_images, tmp_path)
    assert said.startswith(f"warning: {tmp_path}: 3 pictures left out: 000, 000.dat, 000.png~ (")


def test_no_pictures(tree, caplog):
    """Texts and the like are not worth a word."""
    for folder in ("", "train", "train/good", "test", "test/hole", "ground_truth", "ground_truth/hole"):
        for name in ("license.txt", "readme.md", "a.json", "b.csv", "c", "BM", "P5.xml", "x.bin"):
            put(tree / "widget" / folder / name, b"BM" if name == "BM" else b"P51 II ")
    os.mkfifo(tree / "widget/train/good/pipe")
    assert not warnings_of(caplog, list_train, tree, "widget")
    assert not warnings_of(caplog, list_test, tree, "widget")


def test_subfolders_and_loose(tree, caplog):
    """Pictures below the folders that are read, and beside them."""
    folder = tree / "widget"
    for i in range(5):
        put(folder / f"train/good/batch/old/{i}.png")
    for name in ("preview.png", "validation/good/000.png", "train/bad/000.png", "train/001.jpg", "test/002.gif"):
        put(folder / name)
    for name in ("test/hole/more/003.webp", "ground_truth/004.png", "ground_truth/hole/aside/005.png"):
        put(folder / name)
    for circle, target in (("circle", ""), ("batch/old/circle", "batch")):
        (folder / "train/good" / circle).symlink_to(folder / "train/good" / target, target_is_directory=True)
    said = warnings_of(caplog, list_train, tree, "widget") + warnings_of(caplog, list_test, tree, "widget")
    own = f"read: {READ}, in the folder itself"
    parts = "only these folders are read: train, test, ground_truth"
    assert sorted(said) == sorted(
        [
            f"warning: {folder}: 2 pictures left out: preview.png, validation/good/000.png ({parts})",
            f"warning: {folder}/train: 2 pictures left out: 001.jpg, bad/000.png (only these folders are read: good)",
            f"warning: {folder}/train/good: 5 pictures left out: batch/old/0.png, batch/old/1.png, batch/old/2.png, "
            f"... ({own})",
            f"warning: {folder}/test: 1 picture left out: 002.gif (only these folders are read: good, hole, stain)",
            f"warning: {folder}/test/hole: 1 picture left out: more/003.webp ({own})",
            f"warning: {folder}/ground_truth: 1 picture left out: 004.png "
            "(only these folders are read: good, hole, stain)",
            f"warning: {folder}/ground_truth/hole: 1 picture left out: aside/005.png ({own})",
        ]
    )


def test_many(tmp_path, monkeypatch):
    """Below a folder that may be somebody's home it counts no further than to a limit."""
    monkeypatch.setattr("src.data.folders._MOST", 20)
    for i in range(30):
        put(tmp_path / f"deep/{i}.png")
    put(tmp_path / "a.png")
    said = []
    list_images(tmp_path, report=said.append)
    assert said[0].startswith(f"{tmp_path}: 20 or more pictures left out: deep/0.png, ")


def test_nothing_else(tree, refused, tmp_path):
    """An error that there is no picture says what there is instead."""
    for path in (tree / "widget/train/good").iterdir():
        path.rename(path.with_suffix(".webp"))
    expected = f"train/good: holds no image ({READ}); 6 pictures left out: 000.webp, 001.webp, 002.webp, ... (read: "
    words = ("--data_url", tree, "--category", "widget", "--pre_ckpt_path", "random", "--train_url", tmp_path / "out")
    assert expected in refused(train, *words)
    model = write_red_model(tmp_path / "model", size=32)
    words = ("--image_path", tree / "widget/test", "--ckpt_path", model, "--out_dir", tmp_path / "out")
    assert refused(predict, *words).endswith(
        f"6 pictures left out: good/000.png, good/001.png, hole/000.png, ... (read: {READ}, in the folder itself)"
    )


def test_said_by_programs(tree, tmp_path, caplog, capsys):
    """In prediction, calibration and preprocessing of a folder, and by --check, where it is no problem."""
    hole = tree / "widget/test/hole"
    put(hole / "x.webp")
    said = f"{hole}: 1 picture left out: x.webp"
    model = write_red_model(tmp_path / "model", size=32)
    for module, *words in (
        (predict, "--image_path", hole, "--ckpt_path", model, "--out_dir", tmp_path / "out"),
        (calibrate, "--image_path", hole, "--ckpt_path", model, "--category", "widget"),
        (preprocess, "--data_dir", hole, "--img_dir", tmp_path / "in", "--category", "other", "--image_size", 32),
        (preprocess, "--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget", "--image_size", 32),
    ):
        warn_once.cache_clear()
        messages = warnings_of(caplog, module.main, module.parse_args(arguments(*words)))
        assert sum(said in message for message in messages) == 1, module
    capsys.readouterr()
    put(tree / "loose.png")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0
    out = capsys.readouterr().out
    assert f"warning: {said}" in out
    assert f"warning: {tree}: 1 picture left out: loose.png (only these folders are read: widget)" in out
    assert "categories: 1, problems: 0, warnings: 2" in out


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JFIF"])
def test_jpeg_suffixes(tree, suffix):
    """They are JPEGs like others."""
    folder = tree / "widget/test/hole"
    with Image.open(folder / "000.png") as image:
        image.save(folder / f"000.{suffix}", "JPEG")
        image.save(folder / "same.jpg", "JPEG")
    (folder / "000.png").unlink()
    (folder / "same.jpg").rename(tree / "widget/train/good/same.jpg")
    sample = list_test(tree, "widget")[2]
    assert sample.path.name == f"000.{suffix}"
    same = list_train(tree, "widget")[-1]
    assert np.array_equal(*decode_images([sample, same], view=square(32)))


# Leftovers of systems

LEFT = (
    *("Thumbs.db", "THUMBS.DB", "desktop.ini", ".DS_Store", "._000.png", "@eaDir", ".ipynb_checkpoints", "__MACOSX"),
    *("lost+found", "#recycle", "#snapshot", ".snapshot", "$RECYCLE.BIN", "System Volume Information", "@Recycle"),
    *(".@__thumb", ".Trash-1000", "Icon\r", "~snapshot", "Network Trash Folder"),
)


@pytest.mark.parametrize("name", LEFT)
def test_leftovers(tree, tmp_path, caplog, capsys, name):
    """Passed over silently, wherever they stand and whatever is in them."""
    shutil.copytree(tree, tmp_path / "before")
    before = [[sample.path.name for sample in listing(tree, "widget")] for listing in (list_train, list_test)]
    places = ("", "widget", *(f"widget/{part}" for part in ("train", "train/good", "test", "test/hole")))
    for place in (*places, "widget/ground_truth", "widget/ground_truth/hole"):
        if "." in name[1:] and not name.startswith("$"):
            put(tree / place / name, b"\x89PNG")
        else:
            for below in ("000.png", "good/000.png", "train/good/000.png"):
                put(tree / place / name / below, b"\x89PNG")
    assert list_categories(tree) == ["widget"]
    found = [[sample.path.name for sample in listing(tree, "widget")] for listing in (list_train, list_test)]
    assert found == before
    assert decode_masks(list_test(tree, "widget"), view=square(32)).any()
    assert [path.name for path in list_images(tree / "widget/test/hole")] == ["000.png", "001.png"]
    assert len(list_for_inference(tree / "widget/test/hole", "other")) == 2
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0
    assert capsys.readouterr().out.endswith("categories: 1, problems: 0\n")
    assert not caplog.messages


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
