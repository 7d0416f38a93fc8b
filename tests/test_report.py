"""The HTML report: what it says, that it stands alone, and that it works in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import test as test_entry
from src import report
from src.dataset import Sample
from src.evaluate import results_content
from src.metrics import bootstrap_auroc
from src.utils import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZE = 64


@pytest.fixture
def evaluated(tmp_path):
    """Samples, images, masks and maps: 4 good, 6 defective of two types; one miss, one false alarm at threshold 1."""
    rng = np.random.default_rng(2)
    scores = {"good": [0.2, 0.3, 0.4, 1.5], "hole": [0.9, 2, 3], "<b>stain": [1.2, 4, 5]}
    samples, maps, masks = [], [], []
    for defect, values in scores.items():
        for i, value in enumerate(values):
            mask_path = None if defect == "good" else tmp_path / f"{i}_mask.png"
            samples.append(Sample(tmp_path / "test" / defect / f"{i} & <i>.png", defect, mask_path))
            one = rng.uniform(0, 0.1, (SIZE, SIZE)).astype(np.float32)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            one[20:30, 20:30] = value
            if mask_path:
                mask[20:32, 20:30] = 255
            maps.append(one)
            masks.append(mask)
    images = rng.integers(0, 255, (len(samples), SIZE, SIZE, 3), np.uint8)
    return samples, images, np.stack(masks), np.stack(maps)


def contents(evaluated, threshold=1.0):
    samples, _, masks, maps = evaluated
    about = {"category": "wid<get>", "model": "m.ckpt", "image_size": SIZE, "config_hash": None}
    return results_content(
        samples, maps, masks, about=about, mask_rule="half", threshold=threshold, threshold_source="--threshold"
    )


def write(evaluated, folder, threshold=1.0):
    folder.mkdir(parents=True)
    results = contents(evaluated, threshold)
    samples, images, masks, maps = evaluated
    (folder / "results.json").write_text(json.dumps(results))
    return report.write_report(folder, results, samples, images, masks, maps), results


def test_report_says_what_the_results_say(evaluated, tmp_path):
    path, results = write(evaluated, tmp_path / "o")
    page = path.read_text()
    for metric in ("pixel_auroc", "image_auroc", "pro"):
        assert f"<td>{results[metric]:.4f}</td>" in page
    assert "Threshold from --threshold: 1" in page
    assert "<td>defective</td><td>5</td><td>1</td>" in page
    assert "<td>good</td><td>1</td><td>3</td>" in page
    assert page.count('<figure class="tile') == 10
    assert page.count('data-wrong="missed"') == 1
    assert page.count('data-wrong="false alarm"') == 1
    assert page.count("<svg") == 4


def test_report_stands_alone_escapes_names_and_is_the_same_again(evaluated, tmp_path):
    page = write(evaluated, tmp_path / "a")[0].read_text()
    without_data = re.sub(r'src="data:image/jpeg;base64,[^"]+"', "", page)
    loads = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", without_data)
    assert all(target.startswith("#") for target in loads)  # inside the page's own curves
    assert "@import" not in page
    for name in ("<b>", "<i>", "<get>"):
        assert name not in page
    assert "&lt;b&gt;stain/0 &amp; &lt;i&gt;.png" in page
    assert write(evaluated, tmp_path / "b")[0].read_text() == page


def test_report_without_threshold_has_no_verdicts(evaluated, tmp_path):
    page = write(evaluated, tmp_path / "o", threshold=None)[0].read_text()
    assert "The model has no threshold: it is not calibrated." in page
    assert "called good" not in page.replace("<th scope=col>called good</th>", "")
    assert 'data-verdict=""' in page


def test_report_of_good_images_only(evaluated, tmp_path):
    good = tuple(part[:4] for part in evaluated)
    page = write(good, tmp_path / "o")[0].read_text()
    assert "undefined: no label is defective" in page
    assert page.count("<svg") == 1  # the histogram


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.11, 4, ["0.1", "0.2", "0.5", "1", "2"]),
        (1e-3, 50, ["0.001", "0.01", "0.1", "1", "10"]),
        (0.9, 1.1, ["0.900", "0.925", "0.950", "0.975", "1.000", "1.025", "1.050", "1.075", "1.100"]),
        (0, 2, ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25", "1.50", "1.75", "2.00"]),
    ],
)
def test_ticks_of_the_histogram_are_plain_and_few(low, high, ticks):
    scores = np.linspace(low, high, 20, dtype=np.float32)
    figure = report._histogram(scores, scores > 0.5, "the threshold", has_threshold=True)
    axis = figure[figure.index('id="xtick_1"') : figure.index(">anomaly score; 1 is")]
    found = re.findall(r"<text [^>]*>([^<]+)</text>", axis)
    assert found == ticks


def test_index_links_all_reports(evaluated, tmp_path):
    with pytest.raises(InputError, match=r"holds no <category>/report\.html"):
        report.write_index(tmp_path)
    write(evaluated, tmp_path / "a b")
    write(evaluated, tmp_path / "c", threshold=None)
    page = report.write_index(tmp_path).read_text()
    assert 'href="a%20b/report.html"' in page
    assert 'href="c/report.html"' in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("", ["missed", "false alarm"]),
        ("sort=low&type=good", [0.2, 0.3, 0.4, 1.5]),
        ("sort=high&type=hole", [3, 2, 0.9]),
        ("sort=high&verdict=wrong", [1.5, 0.9]),
        ("sort=file&verdict=good", [0.2, 0.3, 0.4, 0.9]),
    ],
)
def test_gallery_is_sorted_and_filtered_in_a_browser(evaluated, tmp_path, choice, expected):
    path, _ = write(evaluated, tmp_path / "o")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, f"file://{path}#{choice}"], capture_output=True, text=True, timeout=60)
    tiles = [tile for tile in re.findall(r'<figure class="tile[^>]*>', done.stdout) if "hidden" not in tile]
    if not choice:  # wrong verdicts first, the higher score before the lower one
        assert [re.search('data-wrong="([^"]*)"', tile)[1] for tile in tiles[:3]] == ["false alarm", "missed", ""]
        assert len(tiles) == 10
        return
    assert [float(re.search('data-score="([^"]*)"', tile)[1]) for tile in tiles] == pytest.approx(expected)
    assert f"{len(expected)} of 10 images" in done.stdout


def test_evaluation_writes_the_report(exported, session_tree, tmp_path):
    flags = ["--eval_url", session_tree, "--category", "widget", "--ckpt_path", exported / "widget.onnx"]
    flags += ["--out_dir", tmp_path, "--report", tmp_path / "page", "--threshold", 0.001]
    assert test_entry.main(test_entry.parse_args([str(flag) for flag in flags])) == 0
    page = (tmp_path / "page/report.html").read_text()
    assert page.count('<figure class="tile') == 6
    strip = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)[1]

    with Image.open(io.BytesIO(base64.b64decode(strip))) as picture:
        assert picture.width == 4 * picture.height


def test_bootstrap_is_that_of_redrawn_images():
    rng = np.random.default_rng(1)
    labels = np.arange(60) < 25
    scores = rng.normal(labels * 1.0, 1).astype(np.float32)
    low, high = bootstrap_auroc(scores, labels, draws=2000)
    good, bad = np.flatnonzero(~labels), np.flatnonzero(labels)
    values = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])
        values.append(roc_auc_score(labels[rows], scores[rows]))
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.015)
    assert bootstrap_auroc(scores, labels) == bootstrap_auroc(scores, labels)

    maps = rng.random((8, 6, 6)).astype(np.float32)
    masks = np.zeros((8, 6, 6), bool)
    masks[:4, :3] = True
    maps[masks] += 0.3
    low, high = bootstrap_auroc(maps, masks)
    assert low < roc_auc_score(masks.ravel(), maps.ravel()) < high
