"""The folder layout: order, pairing, and an error that names each thing that is wrong."""

import mmap
import shutil

import numpy as np
import pytest
from PIL import Image

from src import dataset
from src.data.arrays import allocate, decode_images, decode_masks
from src.data.check import OFFICIAL_COUNTS
from src.data.images import to_network_input
from src.data.samples import (
    Sample,
    hold_out,
    list_categories,
    list_for_inference,
    list_images,
    list_test,
    list_train,
    samples_sha256,
)
from src.data.view import square
from src.dataset import EpochBatches, epoch_order
from src.utils import InputError
from tests.conftest import make_tree, run_python


def test_listing(tree):
    """Sorted, with masks by stem."""
    samples = list_test(tree, "widget")
    assert [f"{s.defect}/{s.path.name}" for s in samples] == [
        *("good/000.png", "good/001.png", "hole/000.png", "hole/001.png", "stain/000.png", "stain/001.png")
    ]
    assert [s.is_defective for s in samples] == [False, False, True, True, True, True]
    assert samples[0].mask_path is None
    assert samples[3].mask_path == tree / "widget/ground_truth/hole/001_mask.png"
    assert [s.path.name for s in list_train(tree, "widget")] == [f"{i:03}.png" for i in range(6)]


def test_masks_without_suffix(tree):
    """And pictures of any format."""
    folder = tree / "widget"
    (folder / "ground_truth/hole/000_mask.png").rename(folder / "ground_truth/hole/000.png")
    Image.open(folder / "test/hole/000.png").save(folder / "test/hole/000.bmp")
    (folder / "test/hole/000.png").unlink()
    assert list_test(tree, "widget")[2].mask_path.name == "000.png"


def test_no_mask_folder(tree):
    shutil.rmtree(tree / "widget/ground_truth/stain")
    assert [s.mask_path is None for s in list_test(tree, "widget")] == [True, True, False, False, True, True]
    shutil.rmtree(tree / "widget/ground_truth")
    assert all(s.mask_path is None for s in list_test(tree, "widget"))


def test_missing_category(tree, tmp_path):
    make_tree(tree, category="gadget")
    for other in ("notes", "outputs/train", ".cache/train/good"):
        (tree / other).mkdir(parents=True)
    assert list_categories(tree) == ["gadget", "widget"]
    with pytest.raises(InputError, match=r"no category 'bottle'; found: gadget, widget"):
        list_train(tree, "bottle")
    with pytest.raises(InputError, match=r"nowhere: no such data set folder"):
        list_train(tmp_path / "nowhere", "bottle")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found: none"):
        list_test(tmp_path / "empty", "bottle")


def test_empty_folders(tree):
    folder = tree / "widget"
    for path in (folder / "train/good").iterdir():
        path.unlink()
    (folder / "train/good/notes.txt").touch()
    with pytest.raises(InputError, match=r"train/good: holds no image"):
        list_train(tree, "widget")
    for path in (folder / "test/hole").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"test/hole: holds no image"):
        list_test(tree, "widget")
    shutil.rmtree(folder / "test")
    with pytest.raises(InputError, match=r"test: no such folder"):
        list_test(tree, "widget")
    (folder / "test").mkdir()
    shutil.rmtree(folder / "ground_truth")
    with pytest.raises(InputError, match=r"test: holds no folder of images"):
        list_test(tree, "widget")


def test_missing_and_extra_masks(tree):
    masks = tree / "widget/ground_truth"
    (masks / "hole/001_mask.png").unlink()
    with pytest.raises(InputError, match=r"hole: no mask for .*test/hole/001\.png; expected 001_mask\.png"):
        list_test(tree, "widget")
    shutil.copy(masks / "hole/000_mask.png", masks / "hole/001_mask.png")
    shutil.copy(masks / "hole/000_mask.png", masks / "hole/007_mask.png")
    with pytest.raises(InputError, match=r"007_mask\.png: extra mask"):
        list_test(tree, "widget")
    (masks / "hole/007_mask.png").rename(masks / "hole/001.png")
    with pytest.raises(InputError, match=r"001_mask\.png: second mask for one image, besides 001\.png"):
        list_test(tree, "widget")
    (masks / "hole/001.png").unlink()
    shutil.copytree(masks / "hole", masks / "crack")
    with pytest.raises(InputError, match=r"ground_truth/crack: extra masks"):
        list_test(tree, "widget")


def test_fingerprint_of_contents(tree):
    """Those of masks count where that is asked for."""
    samples = list_test(tree, "widget")
    before = samples_sha256(samples), samples_sha256(samples, with_masks=True)
    assert before[0] != before[1]
    mask = tree / "widget/ground_truth/hole/000_mask.png"
    mask.write_bytes(mask.read_bytes()[::-1])
    assert samples_sha256(samples) == before[0]
    assert samples_sha256(samples, with_masks=True) != before[1]
    samples[0].path.write_bytes(samples[0].path.read_bytes()[::-1])
    assert samples_sha256(samples) != before[0]


def test_fingerprint_of_names(tree):
    """Another name or another defect type is another data set, though every byte is the same; another place is not."""
    folder = tree / "widget"
    found = {samples_sha256(list_test(tree, "widget"))}
    (tree / "widget").rename(tree / "gadget")
    assert {samples_sha256(list_test(tree, "gadget"))} == found
    (tree / "gadget").rename(folder)
    changes = [
        ("test/good/001.png", "test/good/009.png"),
        ("test/hole", "test/hollow"),  # between good and stain, as before
        ("test/stain/001.png", "test/hollow/002.png"),
    ]
    shutil.rmtree(folder / "ground_truth")
    for number, (old, new) in enumerate(changes):
        (folder / old).rename(folder / new)
        found.add(samples_sha256(list_test(tree, "widget")))
        assert len(found) == number + 2


def test_fingerprint_of_order(tree):
    """Which picture has which name and mask counts."""
    samples = list_test(tree, "widget")
    before = samples_sha256(samples, with_masks=True)
    a, b = (tree / f"widget/ground_truth/hole/00{i}_mask.png" for i in (0, 1))
    a.rename(tree / "aside")
    b.rename(a)
    (tree / "aside").rename(b)
    assert samples_sha256(samples, with_masks=True) != before
    assert samples_sha256(list_train(tree, "widget")) != samples_sha256(list_train(tree, "widget")[1:])


def test_order(tmp_path):
    """By name, whatever the order in which the file system has them; hidden files and what is no picture left out."""
    folder = tmp_path / "widget/train/good"
    folder.mkdir(parents=True)
    for i in np.random.default_rng(0).permutation(40):
        (folder / f"{i}.{('png', 'JPG', 'jpeg', 'Tif', 'tiff', 'bmp')[i % 6]}").touch()
    for other in (".hidden.png", "notes.txt", "a.json"):
        (folder / other).touch()
    names = [sample.path.name for sample in list_train(tmp_path, "widget")]
    assert names == sorted(names)
    assert sorted(int(name.partition(".")[0]) for name in names) == list(range(40))
    assert [path.name for path in list_images(folder)] == names
    assert list_images(folder / names[7]) == [folder / names[7]]


def test_for_inference(tree, tmp_path):
    """A category's test images, or all pictures of a folder; a folder of results beside these does not matter."""
    assert list_for_inference(tree, "widget") == list_test(tree, "widget")
    new = tmp_path / "new"
    shutil.copytree(tree / "widget/test/hole", new)
    for _ in range(2):
        found = list_for_inference(new, "widget")
        assert [(one.path, one.defect) for one in found] == [(new / f"00{i}.png", "unlabelled") for i in (0, 1)]
        (new / "widget").mkdir(exist_ok=True)
    shutil.rmtree(tree / "widget/test")
    with pytest.raises(InputError, match=r"widget/test: no such folder"):
        list_for_inference(tree, "widget")


def test_reserved_name(tree):
    before = tree / "widget/test/hole"
    for name in ("unlabelled", "Unlabelled", "unlabeled"):
        before = before.rename(tree / "widget/test" / name)
        with pytest.raises(InputError, match=rf"test/{name}: this name stands for images without labels"):
            list_test(tree, "widget")


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(10, 0.2, 2), (10, 0.25, 2), (10, 0.35, 4), (5, 0.01, 1), (2, 0.5, 1), (9, 0, 0)]
)
def test_hold_out(tmp_path, count, fraction, held):
    """The share, rounded; every image is on one side, each side in its order."""
    samples = [Sample(tmp_path / f"{i}.png", "good") for i in range(count)]
    left, right = hold_out(samples, fraction, seed=3)
    assert len(right) == held
    for side in (left, right):
        assert side == [sample for sample in samples if sample in side]
    assert sorted([*left, *right], key=samples.index) == samples
    assert hold_out(samples, fraction, seed=3) == (left, right)


def test_hold_out_at_random(tmp_path):
    """Another seed holds out others; all are held out about equally often."""
    samples = [Sample(tmp_path / f"{i}.png", "good") for i in range(10)]
    counts = dict.fromkeys(samples, 0)
    for seed in range(400):
        for sample in hold_out(samples, 0.3, seed=seed)[1]:
            counts[sample] += 1
    assert sum(counts.values()) == 1200
    assert all(80 < count < 160 for count in counts.values())  # 120 expected, deviation 9


def test_hold_out_leaves_some(tmp_path):
    samples = [Sample(tmp_path / f"{i}.png", "good") for i in range(2)]
    for few, fraction in ((samples, 0.9), (samples[:1], 0.1)):
        with pytest.raises(InputError, match=rf"^val_split {fraction}: leaves none of {len(few)} images to train on"):
            hold_out(few, fraction, seed=0)


def test_one_stem_twice(tree):
    shutil.copy(tree / "widget/test/hole/000.png", tree / "widget/test/hole/000.bmp")
    with pytest.raises(InputError, match=r"000\.png: has the same stem as 000\.bmp"):
        list_test(tree, "widget")


def test_unreadable_image(tree):
    (tree / "widget/train/good/003.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"train/good/003\.png: not a readable image"):
        decode_images(list_train(tree, "widget"), view=square(32))


def test_decoding(tree):
    samples = list_test(tree, "widget")
    images, masks = decode_images(samples, view=square(32)), decode_masks(samples, view=square(32))
    assert images.shape == (6, 32, 32, 3)
    assert masks.shape == (6, 32, 32)
    for sample, image, mask in zip(samples, images, masks, strict=True):
        with Image.open(sample.path) as picture:
            assert np.array_equal(image, np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS)))
        if sample.defect == "good":
            assert not mask.any()
            continue
        path = tree / "widget/ground_truth" / sample.defect / f"{sample.path.stem}_mask.png"
        with Image.open(path) as picture:
            assert np.array_equal(mask, np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)))
    spilled = decode_images(samples, view=square(32), budget_bytes=100, spill_folder=tree)
    assert is_mapped(spilled)
    assert np.array_equal(spilled, images)


def test_mask_of_another_size(tree):
    path = tree / "widget/ground_truth/stain/001_mask.png"
    Image.new("L", (47, 40), 255).save(path)
    with pytest.raises(InputError, match=r"001_mask\.png: is 47 x 40 pixels, its image .*stain/001\.png is 48 x 40"):
        decode_masks(list_test(tree, "widget"), view=square(32))


def test_epoch_order():
    """A function of seed and epoch alone."""
    orders = {(seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (1, 2)}
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert orders[1, 2] == tuple(epoch_order(50, seed=1, epoch=2))


def test_batches():
    """Images with their features; the last batch is smaller."""
    images = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), np.uint8)
    feature = np.arange(7, dtype=np.float32).reshape(7, 1)
    batches = EpochBatches(images, (feature,), batch_size=3, seed=1, first_epoch=4)
    assert len(batches) == 3
    for epoch in (4, 5):
        found = list(batches)
        assert [len(part[0]) for part in found] == [3, 3, 1]
        order = np.concatenate([part[1][:, 0] for part in found]).astype(int)
        assert np.array_equal(order, epoch_order(7, seed=1, epoch=epoch))
        assert np.array_equal(np.concatenate([part[0] for part in found]), to_network_input(images[order]))


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", None), mmap.mmap)  # behind a memoryview


def test_store(tmp_path):
    """Beyond its budget on disk, where it leaves no file."""
    inside = allocate((10, 10), np.float32, 400, tmp_path)
    spilled = allocate((10, 10), np.float32, 399, tmp_path)
    spilled[:] = np.arange(100).reshape(10, 10)
    assert not is_mapped(inside)
    assert is_mapped(spilled)
    assert spilled[9, 9] == 99
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot hold a cache file"):
        allocate((10, 10), np.float32, 0, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"cannot hold a cache file of 4000000000\.0 GB"):
        allocate((10**9, 10**9), np.float32, 0, tmp_path)


def test_check_of_a_sound_set(session_tree):
    done = run_python("-m", "src.dataset", "--check", session_tree)
    assert done.returncode == 0, done.stderr
    assert "categories: 1, problems: 0" in done.stdout


def test_check_of_defects(tree, capsys):
    """Each kind is found."""
    make_tree(tree, category="bottle")
    shutil.copy(tree / "widget/train/good/002.png", tree / "widget/test/good/leak.png")
    (tree / "widget/test/stain/000.png").write_text("no picture")
    (tree / "widget/ground_truth/hole/001_mask.png").write_text("no picture")
    (tree / "bottle/ground_truth/hole/000_mask.png").unlink()
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    report = capsys.readouterr().out
    assert "leak.png: byte-identical to" in report
    assert f"{tree}/widget/test/stain/000.png: not a readable image" in report
    assert f"{tree}/widget/ground_truth/hole/001_mask.png: not a readable image" in report
    assert "ground_truth/hole: no mask for" in report
    assert "categories: 2, problems: 4" in report


def test_check_of_another_bottle(tree, capsys):
    """One's own product of a name of MVTec AD's is sound; the numbers are a hint that files may be missing."""
    (tree / "widget").rename(tree / "bottle")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0
    report = capsys.readouterr().out
    assert "warning: bottle: 6 + 6 images, MVTec AD has 209 + 83" in report
    assert "categories: 1, problems: 0, warnings: 1" in report


def test_check_of_no_set(refused, tmp_path, tree):
    (tmp_path / "empty").mkdir()
    assert refused(dataset, "--check", tmp_path / "empty").endswith("holds no category (a folder with train/good)")
    assert "it is a category itself: give its parent folder" in refused(dataset, "--check", tree / "widget")
    assert "no such data set folder" in refused(dataset, "--check", tmp_path / "nowhere")


def test_official_counts():
    """Their sums as in the abstract and table 1 of Bergmann et al. 2021."""
    assert len(OFFICIAL_COUNTS) == 15
    assert sum(train for train, _ in OFFICIAL_COUNTS.values()) == 3629
    assert sum(test for _, test in OFFICIAL_COUNTS.values()) == 1725


def test_check_on_real_data(shared):
    done = run_python("-m", "src.dataset", "--check", shared / "data/mvtec")
    assert done.returncode == 0, done.stdout
    assert "bottle              209     83     63  209 + 83     0" in done.stdout
