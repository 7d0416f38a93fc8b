"""Other layouts to MVTec AD's: every image in its place, with its masks, and nothing written if something is amiss."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from src.data import convert
from src.data.samples import list_categories, list_test, list_train
from src.dataset import main as check_dataset
from src.dataset import parse_args as parse_check
from tests.conftest import run_python

RNG = np.random.default_rng(0)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (40, 48, 3), np.uint8)).save(path)


def mask(path, *columns, size=(40, 48)):
    """A mask with a stripe of each value: columns 8, 9, ... where they are 0 otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(size, np.uint8)
    for place, value in columns or ((8, 255),):
        array[10:20, place : place + 4] = value
    Image.fromarray(array).save(path)
    return array


@pytest.fixture
def btad(tmp_path):
    root = tmp_path / "BTech_Dataset_transformed"
    for category, image, own in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        for i in range(3):
            picture(root / category / f"train/ok/{i:04}.{image}")
        for i in range(2):
            picture(root / category / f"test/ok/{i:04}.{image}")
            picture(root / category / f"test/ko/{i:04}.{image}")
            mask(root / category / f"ground_truth/ko/{i:04}.{own}")
    return root


@pytest.fixture
def loco(tmp_path):
    root = tmp_path / "mvtec_loco"
    for part, count in (("train", 3), ("validation", 2), ("test", 2)):
        for i in range(count):
            picture(root / f"pushpins/{part}/good/{i:03}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        for i in range(2):
            picture(root / f"pushpins/test/{kind}/{i:03}.png")
            mask(root / f"pushpins/ground_truth/{kind}/{i:03}/000.png", (8, 236))
    mask(root / "pushpins/ground_truth/logical_anomalies/001/001.png", (30, 255))
    (root / "pushpins/defects_config.json").write_text("[]")
    return root


@pytest.fixture
def visa(tmp_path):
    root = tmp_path / "VisA"
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        for i in range(4):
            path = f"{category}/Data/Images/Normal/{i:04}.JPG"
            picture(root / path)
            rows.append(f"{category},{'train' if i < 3 else 'test'},normal,{path},")
        for i in range(2):
            path, own = f"{category}/Data/Images/Anomaly/{i:03}.JPG", f"{category}/Data/Masks/Anomaly/{i:03}.png"
            picture(root / path)
            rows.append(f"{category},test,anomaly,{path},{own}")
        mask(root / category / "Data/Masks/Anomaly/000.png", (8, 255))
        mask(root / category / "Data/Masks/Anomaly/001.png", (8, 1), (20, 3))
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "bolts"
    for i in range(3):
        picture(root / f"OK/{i}.jpg")
        picture(root / f"OK test/{i}.jpg")
    for kind in ("bent", "rusty"):
        for i in range(2):
            picture(root / f"NG/{kind}/{kind}{i}.jpg")
    for i in range(2):
        mask(root / f"masks/bent{i}_mask.png")
    return root


BY_FLAGS = ["--good", "OK", "--test_good", "OK test", "--defect", "NG/bent=masks", "--defect", "NG/rusty"]


@pytest.fixture
def table(tmp_path):
    """A table, and its rows."""
    root = tmp_path / "line 3"
    rows = ["image_path,label,split,mask_path,category"]
    for camera in ("left", "right"):  # their images have the same names
        for i in range(2):
            picture(root / f"{camera}/{i}.png")
            rows.append(f"{camera}/{i}.png,good,train,,bracket")
        picture(root / f"{camera}/7.png")
        mask(root / f"masks/{camera}.png")
        rows.append(f"{camera}/7.png,scratch,test,masks/{camera}.png,bracket")
    picture(root / "left/9.png")
    rows.append("left/9.png,OK,test,,bracket")
    return write_table(root / "manifest.csv", rows)


def write_table(path, rows):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(*arguments):
    return convert.main(convert.parse_args([str(word) for word in arguments]))


def tree(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def is_sound(root):
    return check_dataset(parse_check(["--check", str(root)])) == 0


def test_btad(btad, tmp_path):
    """By the command line, in folders with spaces; three categories, masks of either suffix."""
    target = tmp_path / "new set"
    done = run_python("-m", "src.data.convert", "--layout", "btad", btad, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(f"{name}: 3 training images, 4 test images (2 good, 2 ko), 2 masks" for name in ("01", "02", "03")),
        f"written to {target}; next: python -m src.dataset --check '{target}'",
    ]
    assert list_categories(target) == ["01", "02", "03"]
    assert {name for name in tree(target) if name.startswith("03")} == {
        *(f"03/train/good/000{i}.bmp" for i in range(3)),
        *(f"03/test/{kind}/000{i}.bmp" for kind in ("good", "ko") for i in range(2)),
        *(f"03/ground_truth/ko/000{i}_mask.bmp" for i in range(2)),
    }
    assert (target / "03/test/ko/0001.bmp").samefile(btad / "03/test/ko/0001.bmp")
    assert (target / "01/test/good/0001.bmp").samefile(btad / "01/test/ok/0001.bmp")
    assert (target / "01/ground_truth/ko/0001_mask.png").samefile(btad / "01/ground_truth/ko/0001.png")
    done = run_python("-m", "src.dataset", "--check", target)
    assert done.returncode == 0, done.stdout
    assert "categories: 3, problems: 0" in done.stdout


def test_loco(loco, tmp_path):
    """Several masks of an image are one; a single one is linked as it is; held-out good images stand apart."""
    assert run("--layout", "loco", loco, tmp_path / "new") == 0
    folder = tmp_path / "new/pushpins"
    assert {path.name for path in folder.iterdir()} == {"train", "validation", "test", "ground_truth"}
    assert (folder / "validation/good/001.png").samefile(loco / "pushpins/validation/good/001.png")
    masks = folder / "ground_truth/logical_anomalies"
    assert (masks / "000_mask.png").samefile(loco / "pushpins/ground_truth/logical_anomalies/000/000.png")
    assert not (masks / "001_mask.png").is_symlink()
    expected = np.zeros((40, 48), np.uint8)
    expected[10:20, 8:12] = expected[10:20, 30:34] = 255
    with Image.open(masks / "001_mask.png") as joined:
        assert joined.mode == "L"
        assert np.array_equal(joined, expected)
    assert len(list_train(tmp_path / "new", "pushpins")) == 3
    assert is_sound(tmp_path / "new")


def test_visa(visa, tmp_path):
    """By its table; a mask of one value is linked, one of several labels is joined, however dark they are."""
    mask(visa / "pcb1/Data/Masks/Anomaly/000.png", (8, 2))
    picture(visa / "pcb1/Data/Images/Normal/0009.JPG")
    done = run_python("-m", "src.data.convert", "--layout", "visa", visa, tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "pcb1: 3 training images, 3 test images (2 anomaly, 1 good), 2 masks, 1 of them rewritten" in done.stdout
    assert f"{visa}/pcb1/Data/Images/Normal: left out 1 of its entries: 0009.JPG" in done.stdout
    folder = tmp_path / "new/pcb1"
    assert (folder / "ground_truth/anomaly/000_mask.png").samefile(visa / "pcb1/Data/Masks/Anomaly/000.png")
    expected = np.zeros((40, 48), np.uint8)
    expected[10:20, 8:12] = expected[10:20, 20:24] = 255
    with Image.open(folder / "ground_truth/anomaly/001_mask.png") as joined:
        assert np.array_equal(joined, expected)
    assert sorted(path.name for path in (folder / "train/good").iterdir()) == ["0000.JPG", "0001.JPG", "0002.JPG"]
    shutil.rmtree(folder)
    assert is_sound(tmp_path / "new")


def test_folder(folders, tmp_path, caplog):
    """By flags; the rest of SOURCE is named, what a flag names is not."""
    picture(folders / "unsorted/1.jpg")
    picture(folders / "NG/cracked/1.jpg")
    (folders / "OK/notes.txt").touch()
    picture(folders / "OK/rejected/1.jpg")
    with caplog.at_level("INFO"):
        assert run("--layout", "folder", *BY_FLAGS, folders, tmp_path / "new") == 0
    assert f"{folders}: left out 1 of its entries: unsorted" in caplog.text
    assert f"{folders}/NG: left out 1 of its entries: cracked" in caplog.text
    assert f"{folders}/OK: left out 2 of its entries: notes.txt, rejected" in caplog.text
    assert "bolts: 3 training images, 7 test images (2 bent, 3 good, 2 rusty), 2 masks" in caplog.text
    samples = list_test(tmp_path / "new", "bolts")
    assert {one.defect: one.mask_path is not None for one in samples} == {"bent": True, "good": False, "rusty": False}
    assert samples[1].mask_path.samefile(folders / "masks/bent1_mask.png")
    assert is_sound(tmp_path / "new")


def test_folder_of_loose_images(folders, tmp_path, caplog):
    """Good images may lie in SOURCE itself; the category may have another name, and two types one folder of masks."""
    for path in (folders / "OK").iterdir():
        path.rename(folders / path.name)
    (folders / "OK").rmdir()
    shutil.rmtree(folders / "OK test")
    for i in range(2):
        mask(folders / f"masks/rusty{i}.png")
    flags = ["--good", ".", "--defect", "NG/bent=masks", "--defect", "NG/rusty=masks", "--category", "m8"]
    with caplog.at_level("INFO"):
        assert run("--layout", "folder", *flags, folders, tmp_path / "new") == 0
    assert "left out" not in caplog.text
    assert "m8: 3 training images, 4 test images (2 bent, 2 rusty), 4 masks" in caplog.text
    assert is_sound(tmp_path / "new")


def test_table(table, tmp_path):
    """Images of one name are told apart by their folders, and keep their masks."""
    assert run("--layout", "csv", table, tmp_path / "new") == 0
    assert tree(tmp_path / "new") == {
        *(f"bracket/train/good/{camera}_{i}.png" for camera in ("left", "right") for i in range(2)),
        *(f"bracket/test/scratch/{camera}_7.png" for camera in ("left", "right")),
        *(f"bracket/ground_truth/scratch/{camera}_7_mask.png" for camera in ("left", "right")),
        "bracket/test/good/9.png",
    }
    samples = list_test(tmp_path / "new", "bracket")
    assert samples[2].path.samefile(table.parent / "right/7.png")
    assert samples[2].mask_path.samefile(table.parent / "masks/right.png")
    assert is_sound(tmp_path / "new")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_table_without_split(table, tmp_path, caplog, separator):
    """anomalib's other form, as a spreadsheet writes it: byte order mark, semicolons, numbers for labels."""
    rows = [
        *("comment;image_path;label_index", '"first; of two";left/0.png;0', "", "-;left/1.png;0", "-;right/7.png;1"),
    ]
    table.write_text("\ufeff" + "\r\n".join(rows).replace(";", separator), encoding="utf-8")
    assert run("--layout", "csv", "--category", "bracket", table, tmp_path / "new") == 0
    assert tree(tmp_path / "new") == {
        "bracket/train/good/0.png",
        "bracket/train/good/1.png",
        "bracket/test/anomaly/7.png",
    }
    assert "left out 1 of its columns: comment" in caplog.text
    assert "has no column split: good images are for training" in caplog.text


def test_links(btad, tmp_path):
    """Relative: they hold when both are moved; copies hold alone."""
    together = tmp_path / "together"
    together.mkdir()
    btad.rename(together / "btad")
    (tmp_path / "alias").symlink_to(together)
    (together / "empty").mkdir()
    assert run("--layout", "btad", tmp_path / "alias/btad", together / "deep/new") == 0
    assert run("--layout", "btad", "--copy", together / "btad", together / "empty") == 0
    together.rename(tmp_path / "elsewhere")
    assert is_sound(tmp_path / "elsewhere/deep/new")
    link = tmp_path / "elsewhere/deep/new/01/train/good/0000.bmp"
    assert os.readlink(link) == "../../../../../btad/01/train/ok/0000.bmp"
    copies = tmp_path / "elsewhere/empty"
    assert tree(copies) == tree(tmp_path / "elsewhere/deep/new")
    shutil.rmtree(tmp_path / "elsewhere/btad")
    assert not any(path.is_symlink() for path in copies.rglob("*"))
    assert is_sound(copies)


def test_links_to_links(btad, tmp_path):
    """A data set of links, such as git-annex's, to files whose names tell nothing."""
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(path for path in btad.rglob("*") if path.is_file())):
        path.rename(store / str(number))
        path.symlink_to(store / str(number))
    assert run("--layout", "btad", btad, tmp_path / "new") == 0
    assert is_sound(tmp_path / "new")
    (store / "0").unlink()
    assert run_python("-m", "src.data.convert", "--layout", "btad", btad, tmp_path / "other").returncode == 1


def test_long_folders(table, tmp_path, capsys):
    """Where they would become part of the name."""
    for camera in ("left", "right"):
        (table.parent / camera).rename(table.parent / (camera + "n" * 248))
    table.write_text(table.read_text().replace("left/", f"left{'n' * 248}/").replace("right/", f"right{'n' * 248}/"))
    with pytest.raises(convert.InputError, match="6 problems"):
        run("--layout", "csv", table, tmp_path / "new")
    assert "n/0.png: its folders' names make its own too long; rename it" in capsys.readouterr().err


def test_long_names(folders, tmp_path):
    """Where there is no room for _mask, the mask has its image's name."""
    stem = "n" * 250
    (folders / "NG/bent/bent0.jpg").rename(folders / f"NG/bent/{stem}.jpg")
    (folders / "masks/bent0_mask.png").rename(folders / f"masks/{stem}.png")
    assert run("--layout", "folder", *BY_FLAGS, folders, tmp_path / "new") == 0
    assert is_sound(tmp_path / "new")


def refuse_extra_mask(root):
    mask(root / "02/ground_truth/ko/0007.png")
    return "02/ground_truth/ko/0007.png: extra mask, there is no image 0007"


def refuse_missing_mask(root):
    (root / "01/ground_truth/ko/0001.png").unlink()
    return "01/test/ko/0001.bmp: has no mask in "


def refuse_second_mask(root):
    mask(root / "01/ground_truth/ko/0001.bmp")
    return "ko/0001.png: second mask for one image, besides 0001.bmp"


def refuse_two_of_a_stem(root):
    picture(root / "02/train/ok/0001.jpg")
    return "02/train/ok/0001.png: has the same stem as "


def refuse_masks_without_images(root):
    mask(root / "03/ground_truth/dent/0000.bmp")
    return "03/ground_truth/dent: extra masks, there is no folder "


def refuse_empty_folder(root):
    shutil.rmtree(root / "03/test/ok")
    (root / "03/test/ok").mkdir()
    return "03/test/ok: holds no image (.png"


def refuse_other_word_for_good(root):
    (root / "01/test/ok").rename(root / "01/test/Good")
    return "'Good': is a name for good images, and here that of a defect type"


def refuse_good_beside_ok(root):
    shutil.copytree(root / "01/test/ok", root / "01/test/good")
    return "01/test/good: expected the name ok; rename it, or move its images into ok"


def refuse_other_name_of_masks(root):
    (root / "01/ground_truth").rename(root / "01/gt")
    return "01/gt: expected the name ground_truth"


def refuse_other_name_of_test(root):
    (root / "01/test").rename(root / "01/Test")
    shutil.rmtree(root / "01/ground_truth")
    return "01/Test: expected the name test"


def refuse_nearly_a_category(root):
    (root / "02/train/ok").rename(root / "02/train/good")
    return "02/train/good: expected the name train/ok; rename it"


def refuse_dead_link_of_masks(root):
    shutil.rmtree(root / "01/ground_truth/ko")
    (root / "01/ground_truth/ko").symlink_to("nowhere")
    return "01/ground_truth/ko: is a link that leads nowhere"


def refuse_dead_link_of_category(root):
    shutil.rmtree(root / "03")
    (root / "03").symlink_to("nowhere")
    return "03: is a link that leads nowhere"


def refuse_reserved_name(root):
    (root / "01/test/ko").rename(root / "01/test/Unlabelled")
    (root / "01/ground_truth/ko").rename(root / "01/ground_truth/Unlabelled")
    return "'Unlabelled': stands for images without labels"


def refuse_dead_link(root):
    (root / "01/test/ok/0000.bmp").unlink()
    (root / "01/test/ok/0000.bmp").symlink_to("nowhere")
    return "01/test/ok/0000.bmp: is a link that leads nowhere"


DAMAGE = [value for name, value in sorted(globals().items()) if name.startswith("refuse_")]


@pytest.mark.parametrize("damage", DAMAGE)
def test_unpaired(btad, tmp_path, capsys, damage):
    """Each is named, and nothing is written."""
    expected = damage(btad)
    with pytest.raises(convert.InputError, match=rf"{btad}: nothing written, for 1 problem \(1 listed above\)"):
        run("--layout", "btad", btad, tmp_path / "new")
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_many_problems(btad, tmp_path):
    """The first are listed; an empty TARGET stays as it is."""
    for i in range(30):
        mask(btad / f"02/ground_truth/ko/1{i:03}.png")
    (tmp_path / "new").mkdir()
    done = run_python("-m", "src.data.convert", "--layout", "btad", btad, tmp_path / "new")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 11
    assert lines[0] == f"problem: {btad}/02/ground_truth/ko/1000.png: extra mask, there is no image 1000"
    assert lines[10] == f"error: {btad}: nothing written, for 30 problems (10 listed above)"
    assert not list((tmp_path / "new").iterdir())


def test_target(btad, tmp_path, refused):
    """What is there is kept."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/.keep").touch()
    assert refused(convert, "--layout", "btad", btad, tmp_path / "full").endswith(
        "full: is not empty (it holds .keep); give a new folder"
    )
    (tmp_path / "file").write_text("mine")
    for name in ("file", "dead"):
        if name == "dead":
            (tmp_path / name).symlink_to("nowhere")
        message = refused(convert, "--layout", "btad", btad, tmp_path / name)
        assert message.endswith(f"{name}: is there already, and no folder; give a new one")
    assert (tmp_path / "file").read_text() == "mine"
    assert tree(tmp_path / "full") == {".keep"}


def test_no_room_for_links(btad, tmp_path, refused, monkeypatch):
    """A file system without links: nothing stays, and the way out is told."""

    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(convert.Path, "symlink_to", refuse)
    assert refused(convert, "--layout", "btad", btad, tmp_path / "new").endswith("it takes no links: give --copy")
    assert not (tmp_path / "new").exists()
    assert run("--layout", "btad", "--copy", btad, tmp_path / "new") == 0


def test_wrong_level(btad, visa, tmp_path, refused):
    """One too high, one too low, or another layout."""
    new = tmp_path / "new"
    assert refused(convert, "--layout", "btad", btad / "01", new).endswith(
        "(a folder with train/ok); it is a category itself: give its parent folder"
    )
    assert refused(convert, "--layout", "btad", tmp_path, new).endswith(f"did you mean {btad}?")
    assert refused(convert, "--layout", "loco", btad, new).endswith("(a folder with train/good)")
    assert refused(convert, "--layout", "visa", tmp_path, new).endswith(f"did you mean {visa}?")
    assert "1cls.csv: no such file" in refused(convert, "--layout", "visa", btad, new)
    assert refused(convert, "--layout", "btad", tmp_path / "nowhere", new).endswith("no such data set folder")
    assert not new.exists()


def test_loco_masks(loco, tmp_path, capsys):
    """Masks in other places, of other sizes, and none."""
    truth = loco / "pushpins/ground_truth"
    mask(truth / "logical_anomalies/001/002.png", size=(40, 40))
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "loco", loco, tmp_path / "new")
    assert "001/002.png: is not as large as " in capsys.readouterr().err
    (truth / "logical_anomalies/001/002.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "loco", loco, tmp_path / "new")
    assert "001/002.png: not a readable image" in capsys.readouterr().err
    shutil.rmtree(truth / "logical_anomalies/001")
    mask(truth / "structural_anomalies/007/000.png")
    with pytest.raises(convert.InputError, match="2 problems "):
        run("--layout", "loco", loco, tmp_path / "new")
    problems = capsys.readouterr().err
    assert "logical_anomalies/001.png: has no mask; expected " in problems
    assert "structural_anomalies/007: extra masks, there is no image 007" in problems
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("left/8.png,good,train,,bracket", "line 9: {root}/left/8.png: no such image file"),
        ("left/9.png,good,train,,bracket", "line 9: {root}/left/9.png: is named twice, also for manifest.csv, line 8"),
        ("left\\\\0.png,good,train,,bracket", "no such image file; write its path with '/'"),
        ("manifest.csv,good,train,,bracket", "manifest.csv: is no image of a kind that is read (.png"),
        ("new.png,scratch,train,masks/new.png,bracket", "is defective (scratch); only good images are for train"),
        ("new.png,scratch,val,masks/new.png,bracket", "is defective (scratch); only good images are for validation"),
        ("new.png,scratch,test,,bracket", "line 9: {root}/new.png: has no mask, and others of bracket, scratch, have"),
        (
            "new.png,scratch,test,masks/left.png,bracket",
            "masks/left.png: is named twice, also for manifest.csv, line 4",
        ),
        ("new.png,good,test,masks/new.png,bracket", "new.png: is good and has a mask"),
        ("new.png,dent,tests,,bracket", "line 9: split 'tests'; expected train, test or val"),
        ("new.png,1,test,,bracket", "line 9: label '1'; expected 'good' or the defect type's name"),
        ("new.png,,test,,bracket", "line 9: label ''; expected 'good'"),
        ("new.png,a/b,test,,bracket", "'a/b': cannot be the name of a folder"),
        ("new.png,dent,test,,nail", "category 'nail': has no good images for training"),
        ("new.png,dent,test", "line 9: has not as many cells as the header, 5"),
        (",dent,test,,bracket", "line 9: names no image"),
        (f"new.png,good,train,,{'b' * 201}", "b': has more than 200 bytes; rename the category"),
        (f"new.png,{'d' * 256},test,,bracket", "d': has more than 255 bytes; rename the defect type"),
    ],
)
def test_rows(table, tmp_path, capsys, row, expected):
    picture(table.parent / "new.png")
    mask(table.parent / "masks/new.png")
    with open(table, "a") as file:
        file.write(row.replace("\\\\", "\\") + "\n")
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "csv", table, tmp_path / "new")
    assert expected.format(root=table.parent) in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


WORDS = ["good", "OK", "okay", "Normal", "normal_test", "test good", "pass", "defect-free", "良品"]


@pytest.mark.parametrize("word", WORDS)
def test_words_for_good(table, tmp_path, word):
    """The same as --check names: what it would refuse as a folder is no defect type here."""
    picture(table.parent / "new.png")
    with open(table, "a", encoding="utf-8") as file:
        file.write(f"new.png,{word},test,,bracket\n")
    assert run("--layout", "csv", table, tmp_path / "new") == 0
    assert "bracket/test/good/new.png" in tree(tmp_path / "new")
    assert is_sound(tmp_path / "new")


@pytest.mark.parametrize("word", WORDS)
def test_words_for_good_as_defects(folders, tmp_path, capsys, word):
    (folders / "NG/rusty").rename(folders / "NG" / word)
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "folder", "--good", "OK", "--defect", f"NG/{word}", folders, tmp_path / "new")
    said = f"NG/{word}: is called as good images are" if word == "good" else f"{word!r}: is a name for good images"
    assert said in capsys.readouterr().err


def test_left_out(btad, visa, loco, tmp_path, caplog):
    """Whatever a layout does not know, in each of its folders."""
    picture(btad / "01/loose.png")
    (btad / "02/notes.txt").touch()
    (loco / "pushpins/license.txt").touch()
    picture(visa / "capsules/Data/Images/Normal/0000.JPG")
    (visa / "candle/image_anno.csv").touch()
    for part in ("Data/More", "Data/Images/Odd", "Data/Masks/Odd"):
        picture(visa / "candle" / part / "0.JPG")
    for name, root in (("btad", btad), ("visa", visa), ("loco", loco)):
        assert run("--layout", name, root, tmp_path / name) == 0
    said = [message.removeprefix("warning: ") for message in caplog.messages if "left out" in message]
    assert said == [
        f"{btad}/01: left out 1 of its entries: loose.png",
        f"{btad}/02: left out 1 of its entries: notes.txt",
        f"{visa}: left out 1 of its entries: capsules",
        f"{visa}/candle: left out 1 of its entries: image_anno.csv",
        f"{visa}/candle/Data: left out 1 of its entries: More",
        f"{visa}/candle/Data/Images: left out 1 of its entries: Odd",
        f"{visa}/candle/Data/Masks: left out 1 of its entries: Odd",
        f"{loco}/pushpins: left out 2 of its entries: defects_config.json, license.txt",
    ]


def test_labels_read_otherwise(visa, tmp_path, capsys):
    """Of one label, but read as nothing if they were linked: of a black palette, or all over the image."""
    masks = visa / "candle/Data/Masks/Anomaly"
    array = mask(masks / "000.png", (8, 2))
    black = Image.fromarray(array).convert("P")
    black.putpalette([0] * 768)
    black.save(masks / "000.png")
    Image.new("L", (48, 40), 1).save(masks / "001.png")
    assert run("--layout", "visa", visa, tmp_path / "new") == 0
    for name, expected in (("000", array > 0), ("001", np.ones((40, 48), bool))):
        with Image.open(tmp_path / f"new/candle/ground_truth/anomaly/{name}_mask.png") as image:
            assert np.array_equal(np.asarray(image) == 255, expected)
    assert is_sound(tmp_path / "new")
    bright = mask(masks / "001.png", (8, 200), (20, 250))  # both mark, but one of them not in full
    assert run("--layout", "visa", visa, tmp_path / "newer") == 0
    with Image.open(tmp_path / "newer/candle/ground_truth/anomaly/001_mask.png") as image:
        assert np.array_equal(np.asarray(image), np.where(bright, 255, 0))
    Image.new("L", (48, 40)).save(masks / "001.png")
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "visa", visa, tmp_path / "other")
    assert "Anomaly/001.png: marks nothing: all its values are 0" in capsys.readouterr().err


def test_without_masks(folders, tmp_path, capsys):
    """A folder of masks that is not there is one problem, not one of each image; one of a thing is no plural."""
    flags = ["--good", "OK", "--defect", "NG/bent=mask"]
    with pytest.raises(convert.InputError, match="1 problem "):
        run("--layout", "folder", *flags, folders, tmp_path / "new")
    assert capsys.readouterr().err == f"problem: {folders}/mask: no such folder of masks\n"


def test_one(folders, tmp_path, caplog):
    for path in (folders / "OK/1.jpg", folders / "OK/2.jpg", folders / "NG/bent/bent1.jpg"):
        path.unlink()
    (folders / "masks/bent1_mask.png").unlink()
    with caplog.at_level("INFO"):
        assert run("--layout", "folder", "--good", "OK", "--defect", "NG/bent=masks", folders, tmp_path / "new") == 0
    assert "bolts: 1 training image, 1 test image (1 bent), 1 mask" in caplog.messages


def test_tables(table, tmp_path, refused):
    new = tmp_path / "new"
    for rows, expected in [
        (["path,label", "a,good"], "has no column image_path; found: path, label"),
        (["image_path", "a"], "has no column label or label_index; found: image_path"),
        (["image_path,label", "a,good"], "has no column category or object; give --category"),
        (["image_path,image,label,object", "a,a,good,x"], "has several columns for one thing: image_path, image"),
        ([], "has no column image_path and no column label or label_index; found: none"),
    ]:
        write_table(table, rows)
        assert expected in refused(convert, "--layout", "csv", table, new)
    table.write_bytes("image_path,label\n".encode("utf-16"))
    assert refused(convert, "--layout", "csv", table, new).endswith("is no UTF-8 text; save it as CSV in UTF-8")
    table.write_bytes(b"image_path,label\n\0")
    assert "not a readable table" in refused(convert, "--layout", "csv", table, new)
    write_table(table, ["image_path,label,label_index,category", "left/0.png,scratch,0,bracket"])
    assert "1 problem " in refused(convert, "--layout", "csv", table, new)
    write_table(table, ["image_path,label,category"])
    said = refused(convert, "--layout", "csv", table, new)
    assert said.endswith("manifest.csv: names no image; expected a row for each, below the header")
    assert refused(convert, "--layout", "csv", table.parent, new).endswith("no such file; expected a table of images")


def test_flags(btad, folders, tmp_path, refused):
    new = tmp_path / "new"
    assert "--good is for --layout folder" in refused(convert, "--layout", "btad", "--good", "ok", btad, new)
    assert "--category is for" in refused(convert, "--layout", "btad", "--category", "x", btad, new)
    assert "--good is required with --layout folder" in refused(convert, "--layout", "folder", folders, new)
    assert "unrecognized arguments: --cop" in refused(convert, "--layout", "btad", "--cop", btad, new)
    assert "expected DIR or DIR=MASK_DIR, got 'a='" in refused(
        convert, "--layout", "folder", "--good", "OK", "--defect", "a=", folders, new
    )
    twice = ["--defect", "NG/bent=masks", "--defect", "NG/bent"]
    assert "--defect NG/bent is given twice" in refused(
        convert, "--layout", "folder", "--good", "OK", *twice, folders, new
    )
    for flag, other, folder in (
        ("--test_good", "--good", "OK/"),
        ("--defect", "--good", "./OK"),
        ("--defect", "--test_good", "OK test"),
    ):
        flags = ["--good", "OK", "--test_good", "OK test", flag, folder]
        said = f"{flag} {folder} is the folder of {other}, too; give each its own images"
        assert said in refused(convert, "--layout", "folder", *flags, folders, new)
    assert "1 problem " in refused(convert, "--layout", "folder", "--good", "nowhere", folders, new)
