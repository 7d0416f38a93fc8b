"""AUROC and PRO against scikit-learn and brute force; ties, single classes, odd values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from src.data.samples import Sample
from src.evaluation.decision import image_scores
from src.evaluation.metrics import PixelRanking, auroc, bootstrap_auroc, undefined_reason
from src.evaluation.results import format_result, score_maps
from src.model.maps import predict_maps

MAPS = arrays(np.float32, (2, 5, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
MASKS = arrays(np.bool_, (2, 5, 6))


def brute_force_pro(maps, masks, limit=0.3):
    """The definition, threshold by threshold."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        above = maps >= threshold
        overlaps = []
        for one, mask in zip(above, masks, strict=True):
            labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
            overlaps += [one[labelled == region].mean() for region in range(1, count + 1)]
        points.append(((above & ~masks).sum() / (~masks).sum(), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@settings(deadline=None, max_examples=200)
@given(MAPS, MASKS)
def test_definitions(maps, masks):
    """AUROC by pairs and by scikit-learn, PRO threshold by threshold."""
    if undefined_reason(masks):
        assert np.isnan(auroc(maps, masks))
        assert np.isnan(PixelRanking(maps).per_region_overlap(masks))
        return
    positive, negative = maps[masks][:, None].astype(float), maps[~masks][None].astype(float)
    by_pairs = ((positive > negative) + 0.5 * (positive == negative)).mean()
    assert auroc(maps, masks) == pytest.approx(by_pairs)
    assert auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    ranking = PixelRanking(maps)
    assert ranking.auroc(masks) == pytest.approx(by_pairs)
    assert ranking.per_region_overlap(masks) == pytest.approx(brute_force_pro(maps, masks))
    first = ranking.auroc(masks, np.array([True, False]))
    assert first == pytest.approx(auroc(maps[:1], masks[:1]), nan_ok=True)


def test_pro_by_hand():
    """Half of the regions found, without a false alarm: PRO 0.5, however large the region that is missed."""
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 1, 1] = True
    masks[0, 8:18, 8:18] = True
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 1, 1] = 1.0
    # from (0, 0.5) the curve rises to (1, 1) at the threshold 0; its mean height below 0.3 is 0.575
    assert PixelRanking(maps).per_region_overlap(masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_connectivity():
    """Pixels that touch at a corner are one region: two regions, of which the other is found."""
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 3, 3] = True
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 3, 3] = 1.0
    assert PixelRanking(maps).per_region_overlap(masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_constant_maps():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :2, :2] = True
    maps = np.full((1, 8, 8), 0.3, np.float32)
    assert auroc(maps, masks) == PixelRanking(maps).auroc(masks) == 0.5
    assert PixelRanking(maps).per_region_overlap(masks) == pytest.approx(0.15)


def test_refused():
    with pytest.raises(ValueError, match="NaN"):
        auroc(np.array([0.1, np.nan], np.float32), np.array([True, False]))
    with pytest.raises(ValueError, match="shape"):
        PixelRanking(np.zeros((1, 2, 2), np.float32)).per_region_overlap(np.zeros((1, 2, 3), bool))


def test_bootstrap_of_one_class():
    """Only draws of both classes count."""
    labels = np.array([[True, True], [True, False], [True, True]])  # in one image alone is anything good
    low, high = bootstrap_auroc(np.array([[3, 4], [2, 1], [5, 6]], np.float32), labels)
    assert (low, high) == (1, 1)
    for one_class in (np.ones(3, bool), np.zeros(3, bool)):
        assert np.isnan(bootstrap_auroc(np.arange(3.0), one_class)).all()


def test_bootstrap():
    """Against the AUROC, by pairs, of all draws of three good and of four defective images, each equally likely."""
    good, bad = np.array([4, 5, 6]), np.array([4, 5, 5, 8])
    pairs = (bad > good[:, None]) + 0.5 * (bad == good[:, None])
    rows = [list(itertools.product(range(count), repeat=count)) for count in (3, 4)]
    areas = [pairs[np.ix_(a, b)].mean() for a, b in itertools.product(*rows)]
    expected = np.quantile(areas, [0.025, 0.975])
    assert len({*expected.round(6), *np.quantile(areas, [0.05, 0.95]).round(6)}) == 4
    scores, labels = np.concatenate([good, bad]).astype(np.float32), np.arange(7) >= 3
    found = bootstrap_auroc(scores, labels, draws=50_000)
    assert found == pytest.approx(tuple(expected), abs=1e-9)
    assert bootstrap_auroc(scores, labels, draws=100, seed=1) == bootstrap_auroc(scores, labels, draws=100, seed=1)


def test_bootstrap_of_images():
    """Whole images are drawn: of two good ones and a defective one, whose pixels are told apart by the pixel."""
    maps = np.array([[1, 2], [5, 6], [3, 4]], np.float32)
    masks = np.array([[False, False], [False, False], [False, True]])
    areas = [
        roc_auc_score(masks[list(rows)].ravel(), maps[list(rows)].ravel())
        for rows in ((0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2))
    ]
    assert bootstrap_auroc(maps, masks, draws=1000) == pytest.approx((min(areas), max(areas)))


def test_bootstrap_of_distant_scores():
    scores = np.array([-3e38, 3e38], np.float32)
    with np.errstate(all="raise"):
        assert bootstrap_auroc(scores, np.array([False, True])) == (1, 1)


def test_reasons():
    assert undefined_reason(np.array([True, False])) is None
    assert "every label" in undefined_reason(np.array([True]))
    assert "no label" in undefined_reason(np.array([False]))
    assert "nothing" in undefined_reason(np.array([], bool))


def make_samples(tmp_path, kinds):
    return [Sample(tmp_path / f"{i}.png", kind.split("-")[0], tmp_path / "m.png" if kind.endswith("-m") else None)
            for i, kind in enumerate(kinds)]  # fmt: skip


def random_case(count):
    rng = np.random.default_rng(0)
    maps = rng.random((count, 16, 16), np.float32)
    masks = np.zeros((count, 16, 16), np.uint8)
    masks[:, 4:8, 4:8] = 255
    return maps, masks


def test_score_maps(tmp_path):
    """Image, pixel and region metrics, each mask rule, and each defect type with the good images alone."""
    samples = make_samples(tmp_path, ["good", "good", "hole-m", "hole-m", "stain-m"])
    maps, masks = random_case(5)
    masks[:2] = 0
    masks[2, 3, 4:8] = 100  # touched, but by less than half
    masks[3, 8, 4:8] = 128  # by just half
    masks[4, 8, 4:8] = 254  # all but wholly
    results = score_maps(maps, masks, samples)
    kinds = np.array(["good", "good", "hole", "hole", "stain"])
    labels, scores = kinds != "good", maps.max((1, 2))
    for rule, truth in (("half", masks >= 128), ("erode", masks == 255), ("dilate", masks > 0)):
        by_rule = score_maps(maps, masks, samples, mask_rule=rule)
        expected = roc_auc_score(truth.ravel(), maps.ravel())
        assert by_rule["pixel_auroc"] == pytest.approx(expected, rel=1e-12)
        assert results["pixel_auroc_by_mask_rule"][rule] == pytest.approx(expected, rel=1e-12)
        assert by_rule["pro"] == pytest.approx(brute_force_pro(maps, truth))
        assert by_rule["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), rel=1e-12)
        assert by_rule["mask_rule"] == rule
        for kind in ("hole", "stain"):
            rows = np.isin(kinds, ("good", kind))
            of_kind = by_rule["by_defect"][kind]
            assert of_kind["images"] == (kinds == kind).sum()
            assert of_kind["image_auroc"] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), rel=1e-12)
            pixel_auroc = roc_auc_score(truth[rows].ravel(), maps[rows].ravel())
            assert of_kind["pixel_auroc"] == pytest.approx(pixel_auroc, rel=1e-12)
    assert results["mask_rule"] == "half"  # where none is asked for
    assert results["images"] == {"test": 5, "good": 2, "defective": 3, "in_pixel_metrics": 5}
    assert results["undefined"] == {}


def test_defects_without_masks(tmp_path):
    """They count for image metrics only."""
    maps, masks = random_case(4)
    masks[[0, 1, 3]] = 0
    results = score_maps(maps, masks, make_samples(tmp_path, ["good", "good", "hole-m", "stain"]))
    assert results["images"]["in_pixel_metrics"] == 3
    assert results["pixel_auroc"] == pytest.approx(roc_auc_score((masks[:3] > 0).ravel(), maps[:3].ravel()), rel=1e-12)
    assert results["by_defect"]["stain"]["pixel_auroc"] is None
    assert results["by_defect"]["stain"]["image_auroc"] is not None


def test_undefined(tmp_path):
    """Each undefined metric comes with its reason."""
    maps, masks = random_case(2)
    results = score_maps(maps, masks * 0, make_samples(tmp_path, ["good", "hole"]))
    assert results["pixel_auroc"] is None
    assert results["pro"] is None
    assert results["undefined"]["pixel_auroc"] == "no defective image has a mask"
    assert "pixel-level auc-roc score :  nan (no defective image has a mask)" in format_result("x", results)
    only_bad = score_maps(maps, masks, make_samples(tmp_path, ["hole-m", "hole-m"]))
    assert "every label is defective" in only_bad["undefined"]["image_auroc"]
    assert only_bad["pixel_auroc"] is not None


def test_batches():
    """All of one size: the last is filled up."""
    sizes = []

    def anomaly_map(images):
        sizes.append(len(images))
        return images[:, :1]

    images = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), np.uint8)
    maps = predict_maps(anomaly_map, images, batch_size=3)
    assert sizes == [3, 3, 3]
    assert np.allclose(maps, (images[..., 0] / 255 - 0.485) / 0.229, atol=1e-5)
    assert np.array_equal(image_scores(maps), maps.max((1, 2)))
