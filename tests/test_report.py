"""The HTML report: what it says, that it stands alone, and that it works in a browser."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from src.data.samples import Sample
from src.evaluation.decision import DecisionRule
from src.evaluation.metrics import bootstrap_auroc
from src.evaluation.results import results_content
from src.evaluation.threshold import confusion
from src.report import page as report
from src.report import table as results_table
from src.report.pictures import colour_map, defect_overlay, save_panels, save_sample_sheet, scale_unit
from src.report.steps import score_ranks, threshold_steps
from src.utils import InputError
from tests.browser import chromium

SIZE = 64
SCORES = {"good": [0.2, 0.3, 0.4, 1.5], "hole": [0.9, 2, 3], "<b>stain": [1.2, 4, 5]}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text by the tag around it, its tables by row, its captions."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.rows, self.captions, self._open = [], [], [], [], []
        self.feed(path.read_bytes().decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
        if "figcaption" in self._open:
            self.captions[-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag):
        return [text for name, text in self.texts if name == tag]

    def charts(self):
        return [one for one in self.attributes("svg") if "role" not in one]

    def panels(self):
        return [one for one in self.attributes("svg") if "role" in one]

    def tiles(self):
        return [one for one in self.attributes("figure") if "data-type" in one]


def decoded(image):
    """The pixels of an element's picture."""
    with Image.open(io.BytesIO(base64.b64decode(image["href"].partition("base64,")[2]))) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Samples, images, masks and maps: 4 good, 6 defective of two types; one miss, one false alarm at threshold 1."""
    rng, folder = np.random.default_rng(2), tmp_path_factory.mktemp("evaluated")
    samples, maps, masks = [], [], []
    for defect, values in SCORES.items():
        for i, value in enumerate(values):
            mask_path = None if defect == "good" else folder / f"{i}_mask.png"
            samples.append(Sample(folder / "test" / defect / f"{i} & <i>.png", defect, mask_path))
            one = rng.uniform(0, 0.1, (SIZE, SIZE)).astype(np.float32)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            one[20:30, 20:30] = value
            if mask_path:
                mask[20:32, 20:30] = 255
            maps.append(one)
            masks.append(mask)
    # smooth, so that a JPEG keeps them, and each unlike the others
    colours = rng.integers(0, 255, (len(samples), 1, 1, 3), np.uint8)
    images = np.repeat(np.repeat(colours, SIZE, axis=1), SIZE, axis=2)
    images[:, 40:] //= 2
    return samples, images, np.stack(masks), np.stack(maps)


def contents(evaluated, threshold=1.0, category="wid<get>", review=None):
    samples, _, masks, maps = evaluated
    about = {"category": category, "model": "m.ckpt", "image_size": SIZE, "config_hash": None}
    rule = DecisionRule(threshold, review=review, source="--threshold")
    return results_content(samples, maps, masks, about=about, rule=rule, mask_rule="half")


def write(evaluated, folder, threshold=1.0, **about):
    folder.mkdir(parents=True)
    results = contents(evaluated, threshold, **about)
    samples, images, masks, maps = evaluated
    (folder / "results.json").write_text(json.dumps(results))
    return report.write_report(folder, results, samples, images, masks, maps), results


@pytest.fixture(scope="module")
def usual(evaluated, tmp_path_factory):
    """Their report, and the results in it."""
    return write(evaluated, tmp_path_factory.mktemp("usual") / "o")


def test_numbers(evaluated, usual):
    """Those of the results, each in its place."""
    page, results = Page(usual[0]), usual[1]
    metrics = [[name, f"{results[key]:.4f}"] for key, name in (
        ("pixel_auroc", "pixel AUROC"), ("image_auroc", "image AUROC"), ("pro", "PRO (FPR up to 0.3)")
    )]  # fmt: skip
    assert [row[:2] for row in page.rows[1:4]] == metrics
    scores, defective = np.concatenate(list(SCORES.values())), np.repeat([False, True], [4, 6])
    for row, bounds in (
        (1, bootstrap_auroc(evaluated[3], evaluated[2] > 127)),
        (2, bootstrap_auroc(scores, defective)),
    ):
        assert page.rows[row][2] == f"{bounds[0]:.4f} to {bounds[1]:.4f}"
        assert bounds[0] < float(page.rows[row][1]) < bounds[1]
    assert page.rows[0] == ["metric", "value", "95 % bootstrap interval"]
    assert page.rows[3][2:] == [""]
    assert "Threshold from --threshold: 1" in page.text("h3")
    assert ["defective", "5", "1"] in page.rows
    assert ["good", "1", "3"] in page.rows
    # Clopper and Pearson's intervals of 5 of 6 and 1 of 4, from a table
    assert ["recall", "0.833 (0.359 to 0.996)"] in page.rows
    assert ["false positive rate", "0.250 (0.006 to 0.806)"] in page.rows
    for defect in ("hole", "<b>stain"):
        found = results["by_defect"][defect]
        assert [defect, "3", f"{found['pixel_auroc']:.4f}", f"{found['image_auroc']:.4f}"] in page.rows
    assert len(page.charts()) == 4


def test_tiles(evaluated, usual, tmp_path):
    """Every image with its score in units of the threshold, its verdict, and whether that is wrong."""
    _, images, masks, _ = evaluated
    page = Page(write(evaluated, tmp_path / "o", threshold=0.5)[0])
    values = [(defect, value) for defect, values in SCORES.items() for value in values]
    assert len(page.tiles()) == len(values) == 10
    for tile, (defect, value) in zip(page.tiles(), values, strict=True):
        called = "defective" if value >= 0.5 else "good"
        wrong = "" if called == ("good" if defect == "good" else "defective") else "false alarm"
        assert (tile["data-type"], tile["data-verdict"], tile["data-wrong"]) == (defect, called, wrong)
        assert float(tile["data-score"]) == pytest.approx(value / 0.5, rel=1e-5)
        assert tile["class"].split() == ["tile", "wrong"][: 2 if wrong else 1]
    assert page.captions[3] == "good/3 & <i>.png: score 3.00, called defective, false alarm"
    assert page.captions[4] == "hole/0 & <i>.png: score 1.80, called defective"
    assert [button["aria-label"] for button in page.attributes("button") if "panels" in button.get("class", "")] == [
        f"{caption.partition(': ')[0]} at full size" for caption in page.captions
    ]
    pictures = np.array([decoded(picture).shape[:2] for picture in page.attributes("image")])
    assert pictures.tolist() == [[SIZE, SIZE]] * 30
    shown = [decoded(picture) for picture in page.attributes("image")]
    outlines = [one for one in page.attributes("path") if one.get("id", "").startswith("outline-")]
    for i, (image, mask, (_, value)) in enumerate(zip(images, masks, values, strict=True)):
        panels = shown[3 * i : 3 * i + 3]
        assert np.abs(panels[0] - image).max() < 40  # at the edge
        assert np.abs(panels[0][:32] - image[:32]).mean() < 4
        assert np.abs(panels[1] - mask).max() == 0
        assert np.abs(panels[2][25, 25] - inferno(min(value / 0.5 / 2, 1))).max() < 25
        points = np.array(re.findall(r"[\d.]+", outlines[i]["d"]), float).reshape(-1, 2)
        if value >= 0.5:  # around the middles of the outermost pixels
            assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([20.5, 20.5], [29.5, 29.5])
        else:
            assert len(points) == 0
    uses = [use["href"] for use in page.attributes("use") if "href" in use]
    assert uses == [f"#{name}-{i}" for i in range(10) for name in ("image", "outline", "outline")]
    assert [tile["data-wrong"] for tile in Page(usual[0]).tiles()] == [
        *([""] * 3),
        "false alarm",
        "missed",
        *([""] * 5),
    ]


def test_form(usual):
    """What the gallery can be filtered by is what its tiles have; names are text, not tags."""
    page = Page(usual[0])
    options = [(attributes.get("value"), text.strip()) for attributes, text in zip(
        page.attributes("option"), page.text("option"), strict=True)]  # fmt: skip
    assert [value for value, _ in options[:4]] == ["wrong", "high", "low", "file"]
    assert options[4:] == [
        *(("", "all"), *((name, name) for name in ("<b>stain", "good", "hole"))),
        *(("", "all"), ("good", "good"), ("defective", "defective"), ("wrong", "wrong")),
    ]
    # what needs the script is neither seen nor pressed without it
    (slider,) = page.attributes("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "10", "4")
    assert [form["class"] for form in page.attributes("form") if "hidden" in form] == ["bar"]
    assert all("disabled" in button for button in page.attributes("button") if button.get("class") == "panels")
    assert [select["name"] for select in page.attributes("select")] == ["sort", "type", "verdict"]
    assert page.text("title") == page.text("h1") == ["STPM: wid<get>"]
    assert not {"b", "i", "get"} & {tag for tag, _ in page.tags}


def test_published_values(evaluated, tmp_path):
    """Beside those of a category of MVTec AD stand the published ones."""
    rows = Page(write(evaluated, tmp_path / "o", category="cable")[0]).rows
    assert rows[0] == ["metric", "value", "95 % bootstrap interval", "model zoo", "paper's code"]
    published = json.loads(results_table.PUBLISHED_PATH.read_text())
    for row, metric in ((1, "pixel_auroc"), (2, "image_auroc")):
        assert rows[row][3:] == [f"{published[source][metric]['cable']:.3f}" for source in ("model_zoo", "paper_code")]
    assert rows[3][3:] == ["", f"{published['paper_code']['pro']['cable']:.3f}"]
    assert rows[1][3] == "0.959"  # of the model zoo's README


def test_facts(evaluated, usual, tmp_path):
    """How many images, and over how many the pixel metrics are."""
    words = "Model m.ckpt, 64 pixels; 10 test images, 4 good and 6 defective"
    assert Page(usual[0]).text("p")[0] == f"{words}."
    samples = [Sample(one.path, one.defect, None if one.defect == "hole" else one.mask_path) for one in evaluated[0]]
    page = Page(write((samples, *evaluated[1:]), tmp_path / "b")[0])
    assert page.text("p")[0] == f"{words}; pixel metrics over the 7 that are good or have a mask."
    assert next(row for row in page.rows if row[0] == "hole")[2] == ""


def test_perfect_separation(evaluated, tmp_path):
    """Whatever is redrawn of images that do not overlap is perfect, too, which tells nothing."""
    rows = [i for i, sample in enumerate(evaluated[0]) if sample.path.stem[0] != "3" and i != 4]
    chosen = ([evaluated[0][i] for i in rows], *(part[rows] for part in evaluated[1:]))
    page = Page(write(chosen, tmp_path / "o")[0])
    assert page.rows[2][1:3] == ["1.0000", "not known: no overlap to redraw"]


def test_standing_alone(evaluated, usual, tmp_path):
    """It loads nothing; written again, it is the same."""
    path = usual[0]
    page = Page(path)
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert value.startswith(("#", "data:")), value  # inside the page's own curves, or in the page
    assert "@import" not in path.read_text()
    assert "url(http" not in path.read_text()
    assert write(evaluated, tmp_path / "b")[0].read_bytes() == path.read_bytes()


def test_no_threshold(evaluated, tmp_path):
    """No verdicts, and another unit."""
    page = Page(write(evaluated, tmp_path / "o", threshold=None)[0])
    assert "The model has no threshold: it is not calibrated." in page.text("p")
    assert not [text for text in page.captions if "called" in text]
    assert not page.attributes("input")
    assert {(tile["data-verdict"], tile["data-wrong"]) for tile in page.tiles()} == {("", "")}
    # in units of the highest good score, 1.5
    assert float(page.tiles()[-1]["data-score"]) == pytest.approx(5 / 1.5, rel=1e-5)
    assert any("1 is the highest score of a good image" in text for text in page.text("p"))


def test_good_images_only(evaluated, tmp_path):
    page = Page(write((evaluated[0][:4], *(part[:4] for part in evaluated[1:])), tmp_path / "o")[0])
    assert page.rows[1][1] == "undefined: no label is defective"
    assert len(page.charts()) == 1  # the histogram


def points(path):
    """The points of an SVG path, (N, 2)."""
    return np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d")), float)


def drawings(path):
    """The page's figures: each one's axes, as a box (left, upper, right, lower), and what is drawn inside it."""
    for svg in re.findall(r"<figure role=img.*?(<svg.*?</svg>)", path.read_text(), re.DOTALL):
        paths = {group.get("id"): group.findall("{*}path") for group in ElementTree.fromstring(svg).iterfind(".//{*}g")}
        box = points(paths["patch_2"][0])
        inside = [points(one) for found in paths.values() for one in found if one.get("clip-path")]
        yield np.concatenate([box.min(axis=0), box.max(axis=0)]), inside


def test_curves(usual):
    """The areas under the curves are the metrics."""
    figures = list(drawings(usual[0]))[1:]
    metrics = [usual[1][name] for name in ("image_auroc", "pixel_auroc", "pro")]
    assert len({round(value, 2) for value in metrics}) == 3
    for (box, inside), expected in zip(figures, metrics, strict=True):
        x, y = max(inside, key=len).T  # grid lines have two points
        x, y = (x - box[0]) / (box[2] - box[0]), (box[3] - y) / (box[3] - box[1]) * 1.02
        assert (x[0], x[-1]) == pytest.approx((0, 1), abs=0.01)
        assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(expected, abs=0.01)


def test_histogram(evaluated, usual, tmp_path):
    """Bars of 4 good and 6 defective images, and the threshold, where there is one."""
    _, inside = next(drawings(usual[0]))
    bars = [np.ptp(one, axis=0) for one in inside if len(one) == 4]
    heights = [sum(height for _, height in bars[start : start + 30]) for start in (0, 30)]
    assert heights[1] / heights[0] == pytest.approx(6 / 4)
    texts = Page(usual[0]).text("text")
    assert [text for text in texts if text in ("good", "defective", "threshold")] == ["good", "defective", "threshold"]
    assert "anomaly score; 1 is the threshold" in texts
    good = (evaluated[0][:4], *(part[:4] for part in evaluated[1:]))
    texts = Page(write(good, tmp_path / "o", threshold=None)[0]).text("text")
    assert "threshold" not in texts


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.11, 4, ["0.1", "0.2", "0.5", "1", "2"]),
        (1e-3, 50, ["0.001", "0.01", "0.1", "1", "10"]),
        (0.9, 1.1, ["0.900", "0.925", "0.950", "0.975", "1.000", "1.025", "1.050", "1.075", "1.100"]),
        (0, 2, ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25", "1.50", "1.75", "2.00"]),
    ],
)
def test_ticks(tmp_path, low, high, ticks):
    """Few and plain numbers."""
    maps = np.repeat(np.linspace(low, high, 5, dtype=np.float32), 4).reshape(5, 2, 2)
    samples = [Sample(tmp_path / f"{i}.png", "good") for i in range(5)]
    nothing = np.zeros((5, 2, 2), np.uint8)
    page = write((samples, np.zeros((5, 2, 2, 3), np.uint8), nothing, maps), tmp_path / "o")[0].read_text()
    axis = page[page.index('id="xtick_1"') : page.index(">anomaly score; 1 is the threshold<")]
    assert re.findall(r"<text [^>]*>([^<]+)</text>", axis) == ticks


def test_index(evaluated, usual, tmp_path):
    """A row and a link for each report."""
    with pytest.raises(InputError, match=r"holds no <category>/report\.html"):
        report.write_index(tmp_path)
    results = usual[1]
    for name, content in (("a b", results), ("c", results | {"decision": None})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    page = Page(report.write_index(tmp_path))
    assert [link["href"] for link in page.attributes("a")] == ["a%20b/report.html", "c/report.html"]
    metrics = [f"{results[name]:.4f}" for name in ("pixel_auroc", "image_auroc", "pro")]
    assert len({*metrics}) == 3
    intervals = " (95 % interval)"
    assert page.rows == [
        ["category", "pixel AUROC", "image AUROC", "PRO", f"recall{intervals}", f"false positive rate{intervals}"],
        ["a b", *metrics, "0.833 (0.359 to 0.996)", "0.250 (0.006 to 0.806)"],
        ["c", *metrics, "", ""],
    ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("", [1.5, 0.9, 5, 4, 3, 2, 1.2, 0.4, 0.3, 0.2]),  # wrong verdicts first, the higher score before the lower one
        ("sort=low&type=good", [0.2, 0.3, 0.4, 1.5]),
        ("sort=high&type=hole", [3, 2, 0.9]),
        ("sort=high&verdict=wrong", [1.5, 0.9]),
        ("sort=file&verdict=good", [0.2, 0.3, 0.4, 0.9]),
        ("verdict=wrong&threshold=2", [1.2, 0.9]),
        ("sort=high&threshold=nonsense&verdict=wrong", [1.5, 0.9]),
    ],
)
def test_gallery(usual, browser, choice, expected):
    """Sorted and filtered, as the address says."""
    browser.open(f"file://{usual[0]}#{choice}")
    tiles = "[...document.querySelectorAll('.tile:not([hidden])')]"
    assert browser.value(f"{tiles}.map(tile => +tile.dataset.score)") == pytest.approx(expected)
    assert browser.value("document.querySelector('#count').textContent") == f"{len(expected)} of 10 images"


def state(browser):
    """What the page says: the slider's value in words, its own tables, rates, and of each tile in order what it is."""
    return browser.value("""({
        value: document.querySelector('#slider').getAttribute('aria-valuetext'),
        shown: document.querySelector('#value').textContent,
        heading: document.querySelector('#decision h3').textContent,
        rows: [...document.querySelectorAll('#decision tr')].map(row => [...row.children].map(one => one.textContent)),
        rates: document.querySelector('#rates').textContent,
        line: document.querySelector('#line path').getBoundingClientRect().x,
        address: location.hash,
        tiles: [...document.querySelectorAll('.tile')].map(tile => ({
            ...tile.dataset, score: +tile.dataset.score, classes: [...tile.classList],
            caption: tile.querySelector('figcaption').textContent,
        })),
    })""")


def expected_rate(part, whole):
    """A rate with Clopper and Pearson's interval, by the beta distribution."""
    low = beta.ppf(0.025, part, whole - part + 1) if part else 0
    high = beta.ppf(0.975, part + 1, whole - part) if part < whole else 1
    return f"{part / whole:.3f} ({low:.3f} to {high:.3f})"


@pytest.mark.parametrize(
    ("keys", "threshold", "changed"),
    [
        (["Home"], 0.2, 4),
        (["ArrowLeft"], 0.5, 1),
        (["ArrowRight"], 1.5, 1),
        (["ArrowRight"] * 3, 3, 3),
        (["Home", "ArrowRight", "ArrowRight"], 0.4, 2),
        (["End"], 6, 6),
    ],
)
def test_slider(usual, browser, keys, threshold, changed):
    """By keyboard: counts and rates of another threshold, and its verdicts on every image, as Python counts them."""
    browser.open(f"file://{usual[0]}")
    before = state(browser)
    browser.value("document.querySelector('#slider').focus()")
    browser.press(*keys)
    found = state(browser)
    number, words = found["value"].split(", ")
    ratio = float(words.removesuffix(" times the given threshold"))
    assert (float(number), found["shown"]) == (pytest.approx(ratio, rel=1e-3), found["value"])
    labels = np.repeat([False, True], [4, 6])
    scores = np.concatenate(list(SCORES.values()))
    for other in (threshold, float(number)):
        counts = confusion(scores, labels, other)
        positives = [counts["true_positives"], counts["false_positives"]]
        recall, alarms = expected_rate(positives[0], 6), expected_rate(positives[1], 4)
        precision = expected_rate(positives[0], sum(positives)) if sum(positives) else "none to count"
        assert found["rows"] == [
            ["really", "called defective", "called good"],
            ["defective", str(positives[0]), str(6 - positives[0])],
            ["good", str(positives[1]), str(4 - positives[1])],
            ["rate", "value (95 % interval)"],
            *(["recall", recall], ["precision", precision], ["false positive rate", alarms]),
        ]
    noun = "verdict" if changed == 1 else "verdicts"
    assert found["rates"] == f"recall {recall}, false positive rate {alarms}; {changed} other {noun}"
    assert found["heading"] == f"Threshold set by the slider: {number}"
    for tile in found["tiles"]:
        called, truth = [
            "defective" if is_so else "good" for is_so in (tile["score"] >= float(number), tile["type"] != "good")
        ]
        was = "defective" if tile["score"] >= 1 else "good"
        wrong = "" if called == truth else "missed" if called == "good" else "false alarm"
        assert (tile["verdict"], tile["wrong"]) == (called, wrong)
        classes = ["tile", *["wrong"] * bool(wrong), *["changed"] * (called != was)]
        assert sorted(tile["classes"]) == sorted(classes)
        words = ["", f"called {called}", *[wrong] * bool(wrong), *[f"{was} at the given threshold"] * (called != was)]
        assert tile["caption"].endswith(f": score {tile['score']:.2f}" + ", ".join(words))
    assert sum("changed" in tile["classes"] for tile in found["tiles"]) == changed
    order = [(tile["wrong"] == "", -tile["score"]) for tile in found["tiles"]]
    assert order == sorted(order)
    # the axis is logarithmic; the highest threshold is at its end, at most
    assert np.sign(found["line"] - before["line"]) == np.sign(float(number) - 1)
    assert f"threshold={number}" in found["address"]

    browser.press("Tab", "Enter")  # Reset
    assert browser.value("document.activeElement.id") == "reset"
    assert state(browser) == before
    assert before["value"] == "1, the given threshold"


@pytest.mark.parametrize(
    ("keys", "threshold"),
    [([], 1), (["ArrowRight"] * 3, 2.5)],
)
def test_review(evaluated, browser, tmp_path, keys, threshold):
    """From a share of whatever threshold the slider has, images are for review, which is not wrong."""
    path, _ = write(evaluated, tmp_path / "o", review=0.4)
    browser.open(f"file://{path}")
    browser.value("document.querySelector('#slider').focus()")
    browser.press(*keys)
    found = state(browser)
    rule = DecisionRule(float(found["value"].split(", ")[0]), review=0.4)
    assert rule.threshold == threshold
    called = {defect: [rule.verdict(score) for score in scores] for defect, scores in SCORES.items()}
    counts = [[sum(verdicts.count(name) for verdicts in group) for name in ("defective", "review", "good")]
              for group in ([called["hole"], called["<b>stain"]], [called["good"]])]  # fmt: skip
    assert found["rows"][:3] == [
        ["really", "called defective", "for review", "called good"],
        ["defective", *map(str, counts[0])],
        ["good", *map(str, counts[1])],
    ]
    assert counts[0][1] + counts[1][1] >= 2
    for tile in found["tiles"]:
        verdict = rule.verdict(tile["score"])
        assert tile["verdict"] == verdict
        if verdict == "review":
            assert tile["wrong"] == ""
            assert ", for review" in tile["caption"]
    if not keys:  # as without the script
        assert [tile["data-verdict"] for tile in Page(path).tiles()] == [
            one for each in called.values() for one in each
        ]
        assert ["really", "called defective", "for review", "called good"] in Page(path).rows
        assert ["defective", *map(str, counts[0])] in Page(path).rows
        assert "review" in [option.get("value") for option in Page(path).attributes("option")]


def test_line(usual, browser):
    """The histogram's line goes where the axis has the threshold."""
    browser.open(f"file://{usual[0]}")
    places = {}
    for mark, x in browser.value("""[...document.querySelector('#line').closest('svg').querySelectorAll('[id^=xtick_]')]
            .map(tick => [tick.querySelector('text')?.textContent, tick.querySelector('use').getBoundingClientRect().x])
            """):
        if mark:
            places[float(mark)] = x
    browser.value("document.querySelector('#slider').focus()")
    for key in ("", *["ArrowLeft"] * 3, *["ArrowRight"] * 6):
        browser.press(*[key] * bool(key))
        found = state(browser)
        value = float(found["value"].split(", ")[0])
        expected = np.interp(np.log(value), np.log([*places]), [*places.values()])
        assert found["line"] == pytest.approx(expected, abs=1.5)


def test_full_size(usual, browser):
    """An image opens at its own size by keyboard; Escape or the button closes it, and the focus is where it was."""
    browser.open(f"file://{usual[0]}#sort=file", width=500)
    tile = "document.querySelectorAll('.tile button')[2]"
    browser.value(f"{tile}.focus()")
    for keys in (["Escape"], ["Enter"]):
        browser.press("Enter")
        assert browser.value("document.querySelector('dialog').open")
        assert browser.value("document.querySelector('dialog h2').textContent") == (
            "good/2 & <i>.png: score 0.40, called good"
        )
        assert browser.value("""[...document.querySelectorAll('dialog figure')].map(one => [
            one.textContent, one.querySelector('svg').getBoundingClientRect().width])""") == [
            [name, SIZE] for name in ("image", "mask", "anomaly map", "outlined defect")
        ]
        assert browser.value("document.activeElement.textContent") == "Close"
        browser.press(*keys)
        assert not browser.value("document.querySelector('dialog').open")
        assert browser.value(f"document.activeElement === {tile}")
    assert browser.value(f"{tile}.querySelector('svg').getBoundingClientRect().width") != SIZE
    assert browser.value("document.documentElement.scrollWidth") <= 500


@pytest.mark.parametrize("threshold", [1e-9, 0.2, 0.25, 0.9, 1.0, 5, 700])
def test_steps(threshold):
    """One for each set of verdicts; the number that is shown gives them; the set threshold is one of them."""
    near = np.nextafter(np.float32(0.9), np.float32(1))
    scores = np.array([0.9, 0.2, 0.2, near, 3, 1.0001, 1.0002], np.float32)
    labels = np.arange(7) % 2 == 0
    steps, usual = threshold_steps(scores, labels, threshold)
    assert len(steps) == 7
    verdicts = [(scores >= np.float32(step.threshold)).tolist() for step in steps]
    assert [sum(one) for one in verdicts] == [7, 5, 4, 3, 2, 1, 0]
    assert verdicts[usual] == (scores >= np.float32(threshold)).tolist()
    for step, one in zip(steps, verdicts, strict=True):
        assert [rank >= step.first_defective for rank in score_ranks(scores)] == one
        assert step.decision["true_positives"] == sum(one[::2])
        assert step.decision["false_positives"] == sum(one[1::2])
        assert step.ratio == pytest.approx(float(step.threshold) / threshold, rel=1e-3)
    assert steps[usual].ratio == 1
    assert {len(step.threshold) for step in steps[3:6]} <= {1, 3, 5, 6, 7}


def test_steps_of_extreme_scores():
    """No threshold is below a score of 0; the largest number is no reason to fail."""
    scores = np.array([0, 1, np.finfo(np.float32).max], np.float32)
    steps, usual = threshold_steps(scores, scores > 0, 1.0)
    assert [step.first_defective for step in steps] == [1, 2]
    assert (steps[usual].threshold, usual) == ("1", 0)


def test_without_masks(evaluated, tmp_path):
    """No panel of masks, and no column of what is defined by them, where there is none."""
    samples = [Sample(one.path, one.defect) for one in evaluated[0]]
    page = Page(write((samples, *evaluated[1:]), tmp_path / "o")[0])
    assert [svg["aria-label"] for svg in page.panels()[:4]] == ["image", "anomaly map", "outlined defect", "image"]
    assert ["defect type", "images", "image AUROC"] in page.rows
    assert any("Each: image, anomaly map, outline" in text for text in page.text("p"))


def test_many_pixels(evaluated, monkeypatch):
    """Pictures of very many pixels are reduced, to a tile's size at least, which the page says."""
    monkeypatch.setattr(report, "_PAGE_PIXELS", 10 * 512 * 512)
    sizes = [
        report._picture_size(*size) for size in ((1024, 1024, 10), (1280, 320, 10), (1024, 512, 1000), (64, 32, 9))
    ]
    assert sizes == [(512, 512), (1024, 256), (224, 112), (64, 32)]
    _, images, masks, maps = evaluated
    panels = report._panels(3, images[9], masks[9], maps[9], 1.0, 1, (32, 32))
    assert len(re.findall('viewBox="0 0 64 64" width=32 height=32', panels)) == 4
    shown = [decoded({"href": uri}) for uri in re.findall(r'data:[^"]*', panels)]
    assert [one.shape for one in shown] == [(32, 32, 3), (32, 32), (32, 32, 3)]
    assert (shown[1][12, 12], shown[1][2, 2]) == (255, 0)
    legends = [report._legend("x", size, images, with_masks=True) for size in ((32, 32), (64, 64))]
    assert ["reduced to 32 x 32 pixels" in legend for legend in legends] == [True, False]


@pytest.mark.parametrize(
    ("aspect", "with_masks", "columns"),
    [(1, True, 4), (1.6, True, 2), (3.2, True, 1), (1, False, 3), (1.6, False, 3), (3.2, False, 1), (0.3, True, 4)],
)
def test_columns(aspect, with_masks, columns):
    assert report._columns(aspect, with_masks=with_masks) == columns


def inferno(value):
    """Matplotlib's colour of a number from 0 to 1."""
    return np.array(matplotlib.colormaps["inferno"](float(value), bytes=True)[:3]).astype(int)


def test_colours():
    """Inferno from 0 to twice the unit, and its last colour above."""
    for value in (0, 0.3, 1.0, 1.7, 2.0, 40):
        found = colour_map(np.full((2, 2), value * 0.003, np.float32), 0.003)
        assert np.abs(found.astype(int) - inferno(min(value / 2, 1))).max() <= 3


def test_unit_of_the_colours():
    scores = np.array([3, 1, 2], np.float32)
    assert scale_unit(scores, np.array([False, True, True])) == 2
    assert scale_unit(scores, np.zeros(3, bool)) == 3
    assert scale_unit(scores * 0, np.ones(3, bool)) > 0


@pytest.mark.parametrize("size", [64, 320])
def test_outline(size):
    """Around what reaches the threshold, on a picture of at least 256 pixels; nothing else changes."""
    image = np.full((size, size, 3), 100, np.uint8)
    one = np.zeros((size, size), np.float32)
    quarter = size // 4
    one[quarter : 2 * quarter, : 3 * quarter] = 0.7
    outlined = defect_overlay(image, one, 0.7)
    assert outlined.shape == (max(256, size), max(256, size), 3)
    step = len(outlined) // 4
    changed = (outlined != 100).any(axis=-1)
    assert not changed[: step - 3].any()
    assert not changed[2 * step + 3 :].any()
    assert not changed[:, 3 * step + 3 :].any()
    assert not changed[step + 5 : 2 * step - 5, 5 : 3 * step - 5].any()
    for y in (step, 2 * step - 1):
        assert changed[y - 2 : y + 3, 10 : 3 * step - 10].any(axis=0).all()
    assert not (defect_overlay(image, one, 0.71) != 100).any()


def test_panels(tmp_path):
    """Side by side in the given order, with words above and below."""
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    panels = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    save_panels(tmp_path / "a.png", panels, caption="words", legend="more")
    save_panels(tmp_path / "b.png", panels, caption="", legend="")
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        sheet, bare = np.asarray(a.convert("RGB")), np.asarray(b.convert("RGB"))
    places = [np.argwhere((sheet == colour).all(axis=-1)) for colour in colours]
    assert [len(place) for place in places] == [256 * 256] * 3
    assert len({int(place[0, 0]) for place in places}) == 1
    assert places[0][0][1] + 256 <= places[1][0][1] <= places[2][0][1] - 256
    rows = np.flatnonzero((sheet != bare).any(axis=(1, 2)))
    top = places[0][0][0]
    assert (rows < top).any()
    assert (rows >= top + 256).any()
    assert not ((rows >= top) & (rows < top + 256)).any()


@pytest.mark.parametrize("threshold", [None, 3.0])
def test_sample_sheet(tmp_path, threshold):
    """A row for each defect type, good first, of the image with the median score: image, mask, map."""
    kinds = {"good": [5, 1, 3], "a": [7, 9, 8], "zigzag": [1, 2, 0]}
    samples, images, masks, maps = [], [], [], []
    for defect, values in kinds.items():
        for value in values:
            samples.append(Sample(tmp_path / f"{value}.png", defect))
            images.append(np.full((32, 32, 3), (10 * len(images), 255, 77), np.uint8))
            masks.append(np.full((32, 32), 100 + 10 * len(masks), np.uint8))
            maps.append(np.full((32, 32), value, np.float32))
    arrays = map(np.stack, (images, masks, maps))
    scores = np.array([one.max() for one in maps], np.float32)
    save_sample_sheet(tmp_path / "a.png", samples, *arrays, scores=scores, threshold=threshold)
    with Image.open(tmp_path / "a.png") as picture:
        sheet = np.asarray(picture.convert("RGB")).astype(int)
    shown = (sheet[..., 1] == 255) & (sheet[..., 2] == 77)
    rows = [int(sheet[y, shown[y].argmax(), 0]) // 10 for y in np.flatnonzero(shown.any(axis=1))]
    assert list(dict.fromkeys(rows)) == [2, 5, 6]
    unit = threshold or 5
    for chosen in (2, 5, 6):
        y, left = np.argwhere(shown & (sheet[..., 0] == 10 * chosen))[128 * 256]
        assert (sheet[y, left + 390] == 100 + 10 * chosen).all()
        expected = inferno(min(maps[chosen][0, 0] / unit / 2, 1))
        assert np.abs(sheet[y, left + 650] - expected).max() <= 3


def test_bootstrap():
    """Quantiles of the AUROC over redrawn images."""
    rng = np.random.default_rng(1)
    labels = np.arange(60) < 25
    scores = rng.normal(labels * 1.0, 1).astype(np.float32)
    low, high = bootstrap_auroc(scores, labels, draws=2000)
    good, bad = np.flatnonzero(~labels), np.flatnonzero(labels)
    values = []
    for _ in range(4000):
        redrawn_good, redrawn_bad = rng.choice(scores[good], len(good)), rng.choice(scores[bad], len(bad))
        values.append((redrawn_bad[:, None] > redrawn_good).mean())  # no two scores are equal but a redrawn one's
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.015)
    assert bootstrap_auroc(scores, labels) == bootstrap_auroc(scores, labels)

    maps = rng.random((8, 6, 6)).astype(np.float32)
    masks = np.zeros((8, 6, 6), bool)
    masks[:4, :3] = True
    maps[masks] += 0.3
    low, high = bootstrap_auroc(maps, masks)
    assert low < roc_auc_score(masks.ravel(), maps.ravel()) < high


def read_table(folder):
    return json.loads((folder / "results.json").read_text()), (folder / "results.md").read_text().splitlines()


def test_table(tmp_path):
    """By hand: means of what is defined, and signed differences from the published values, model zoo's first."""
    rows = [
        ("bottle", {"pixel_auroc": 0.9, "image_auroc": 1.0, "pro": None}),
        ("m|<i>ne", {"pixel_auroc": 0.8, "image_auroc": None, "pro": 0.5}),
        ("failed", {}),
    ]
    results_table.write_tables(tmp_path, rows)
    table, lines = read_table(tmp_path)
    assert [row["category"] for row in table["categories"]] == ["bottle", "m|<i>ne", "failed"]
    assert table["mean"]["pixel_auroc"] == pytest.approx(0.85)
    assert (table["mean"]["image_auroc"], table["mean"]["pro"]) == (1.0, 0.5)
    assert table["mean"]["model_zoo_pixel_auroc"] is None  # that of all 15 categories says nothing beside it
    bottle = table["categories"][0]
    assert bottle["model_zoo_pixel_auroc_difference"] == pytest.approx(0.9 - 0.987)
    assert lines[2:] == [
        "| bottle | 0.9000 (-0.087) | 1.0000 (+0.000) | | 0.987 / 1.000 | 0.988 / 1.000 / 0.959 |",
        r"| m\|&lt;i&gt;ne | 0.8000 | | 0.5000 | | |",
        "| failed | | | | | |",
        "| mean | 0.8500 | 1.0000 | 0.5000 | | |",
    ]
    text = (tmp_path / "results.csv").read_text().splitlines()
    assert text[0].startswith("category,pixel_auroc,image_auroc,pro,model_zoo_pixel_auroc,")
    assert text[1].startswith("bottle,0.9,1.0,,0.987,")
    assert text[3].startswith("failed,,,,")


def test_table_of_all_categories(tmp_path):
    """Only beside the mean of all 15 stands the published one, and only where all 15 are defined."""
    names = json.loads(results_table.PUBLISHED_PATH.read_text())["categories"]
    rows = [(name, {"pixel_auroc": 0.97, "image_auroc": 0.9, "pro": None}) for name in names]
    results_table.write_tables(tmp_path, rows)
    mean = read_table(tmp_path)[0]["mean"]
    assert mean["model_zoo_pixel_auroc_difference"] == pytest.approx(0.97 - 0.968)
    results_table.write_tables(tmp_path, [*rows[1:], (names[0], {"image_auroc": 0.9})])
    mean, lines = read_table(tmp_path)[0]["mean"], read_table(tmp_path)[1]
    assert mean["pixel_auroc"] is mean["model_zoo_pixel_auroc_difference"] is None
    assert mean["model_zoo_pixel_auroc"] == 0.968
    assert mean["image_auroc"] == pytest.approx(0.9)
    assert lines[-1].startswith("| mean | | 0.9000 (")


def test_table_in_a_readme(tmp_path, refused):
    """The rows change, the heading and all around the marks stay."""
    (tmp_path / "results.json").write_text(json.dumps({"categories": {"grid": {"pixel_auroc": 0.5}}}))
    before = "Text.\n\n<!-- results: begin -->\n\n| a | b |\n| - | - |\n| old | 1 |\n\n<!-- results: end -->\nMore.\n"
    (tmp_path / "README.md").write_text(before)
    flags = ["--results", str(tmp_path / "results.json"), "--readme", str(tmp_path / "README.md")]
    assert results_table.main(results_table.parse_args(flags)) == 0
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines[:6] == before.splitlines()[:6]
    assert lines[-3:] == before.splitlines()[-3:]
    names = [line.split("|")[1].strip() for line in lines[6:-3]]
    assert names == [*json.loads(results_table.PUBLISHED_PATH.read_text())["categories"], "mean"]
    assert [line for line in lines if line.startswith("| grid | 0.5000 (-0.490) |")]
    both = {"categories": {"grid": {"pixel_auroc": 0.5}}, "recommended": {"grid": {"pixel_auroc": 0.9}}}
    (tmp_path / "results.json").write_text(json.dumps(both))
    assert results_table.main(results_table.parse_args(flags)) == 0
    with_both = (tmp_path / "README.md").read_text().splitlines()
    (new,) = (i for i, line in enumerate(with_both) if line.startswith("| grid, recommended | 0.9000 (-0.090) |"))
    assert with_both[:new] + with_both[new + 1 :] == lines  # below the category's own row; the mean is without it
    assert with_both[new - 1].startswith("| grid | 0.5000 (")
    (tmp_path / "results.json").write_text(json.dumps({"categories": {"grid": {"pixel_auroc": 1.5}}}))
    assert "grid: pixel_auroc 1.5, expected a number from 0 to 1, or null" in refused(results_table, *flags)
    (tmp_path / "results.json").write_text(json.dumps({"categories": {}, "recommended": []}))
    assert "expected an object 'recommended'" in refused(results_table, *flags)
