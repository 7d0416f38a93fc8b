"""One self-contained HTML page on the evaluation of a category, and an index over those of a sweep.

    python -m src.report.page --index FOLDER    # FOLDER/report.html from FOLDER/<category>/report.html and results.json

No network, no mindspore: pictures, curves and the little script are inside the page.
"""

import argparse
import base64
import io
import json
import math
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image
from sklearn.metrics import roc_curve

from ..config import build_parser
from ..data.images import binary_mask
from ..data.samples import Sample
from ..evaluation.decision import DEFECTIVE, GOOD, REVIEW, DecisionRule
from ..evaluation.metrics import PRO_MAX_FPR, PixelRanking, bootstrap_auroc, undefined_reason
from ..evaluation.progress import trend
from ..evaluation.regions import without_small_regions
from ..evaluation.results import ImageRecord, Metric, Results, printed_size, result_scores
from ..evaluation.threshold import Decision, Rate
from ..files import atomic_path, read_json
from ..utils import InputError, run_entry_point
from .pictures import colour_map, outline_path, panel_size, scale_legend, scale_unit
from .steps import Step, score_ranks, threshold_steps
from .table import PUBLISHED_PATH, read_results
from .template import INDEX_PAGE, PAGE, SLIDER

if TYPE_CHECKING:
    from ..model.record import TrainingRecord

REPORT_NAME = "report.html"
_TILE = 224  # pixels of a gallery picture, at least
_WIDE, _VERY_WIDE = 1.5, 3.0  # width to height of images from which less than four stand side by side in the gallery
_PAGE_PIXELS = 300e6  # of all images together, which are about 90 MB; larger ones are reduced
_SVG_DPI = 72  # matplotlib's, whatever a figure's own is
_CURVE_POINTS = 400  # what a curve of millions of points is thinned to
_NAMES: dict[Metric, str] = {
    "pixel_auroc": "pixel AUROC",
    "image_auroc": "image AUROC",
    "pro": f"PRO (FPR up to {PRO_MAX_FPR})",
}


def write_report(
    folder: Path,
    results: Results,
    samples: list[Sample],
    images: np.ndarray,
    masks: np.ndarray,
    maps: np.ndarray,
    *,
    counted: np.ndarray | None = None,
    record: "TrainingRecord | None" = None,
) -> Path:
    """Write the report of one category; return its path.

    Args:
        results: content of results.json.
        images: uint8 RGB (N, H, W, 3).
        masks: resized grey masks, uint8 (N, H, W).
        maps: float32 (N, H, W).
        counted: which pixels count in pixel metrics, bool (H, W); None: all.
        record: content of the model's train.json, where that is there.

    Raises:
        InputError: the file cannot be written.
    """
    labels = np.array([sample.is_defective for sample in samples])
    scores = result_scores(results)
    has_truth = np.array([sample.has_pixel_truth for sample in samples])
    pixels = Pixels(maps[has_truth], binary_mask(masks[has_truth], results["mask_rule"]), counted)
    intervals = _intervals(scores, labels, pixels)
    threshold = results["decision"]["threshold"] if results["decision"] else None
    unit = threshold or scale_unit(scores, ~labels)
    min_area = results.get("min_area", 1)
    unit_name = "the threshold" if threshold else "the highest score of a good image, for want of a threshold"
    review = results["decision"].get("review") if results["decision"] else None
    share = review["from"] if review else None
    steps, usual = threshold_steps(scores, labels, threshold, review=share) if threshold else ([], 0)
    histogram, places = _histogram(scores / unit, labels, unit_name, [step.ratio for step in steps])
    size = _picture_size(images.shape[2], images.shape[1], len(images))
    with_masks = any(sample.mask_path for sample in samples)
    page = PAGE.substitute(
        title=escape(f"STPM: {results['category']}"),
        facts=_facts(results),
        metrics=_metrics_table(results, intervals),
        slider=_slider(steps, usual, places, results) if steps else "",
        decision=_decision(results),
        defects=_defects_table(results),
        training=_training(record) if record else "",
        curves=_curves(scores, labels, pixels),
        histogram=histogram,
        legend=escape(_legend(unit_name, size, images, with_masks=with_masks)),
        verdicts=_options([GOOD, *[REVIEW] * bool(review), DEFECTIVE]),
        types=_options(sorted({sample.defect for sample in samples})),
        columns=_columns(images.shape[2] / images.shape[1], with_masks=with_masks),
        gallery="\n".join(
            _tile(
                record,
                sample,
                int(rank),
                _panels(i, image, mask if with_masks else None, one, unit, min_area, size),
                unit,
            )
            for i, (record, sample, rank, image, mask, one) in enumerate(
                zip(results["scores"], samples, score_ranks(scores), images, masks, maps, strict=True)
            )
        ),
    )
    return _write_page(folder / REPORT_NAME, page)


def _write_page(path: Path, page: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


@dataclass(frozen=True)
class Pixels:
    """What pixel metrics are of: maps, float32 (N, H, W), labels, bool (N, H, W), and which pixels count, or None."""

    maps: np.ndarray
    labels: np.ndarray
    counted: np.ndarray | None

    def of_counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return maps and labels of the pixels that count: (N, pixels) each, or as they are if all do."""
        if self.counted is None:
            return self.maps, self.labels
        return self.maps[:, self.counted], self.labels[:, self.counted]


def _intervals(scores: np.ndarray, labels: np.ndarray, pixels: Pixels) -> dict:
    found = {}
    if not undefined_reason(labels):
        found["image_auroc"] = bootstrap_auroc(scores, labels)
    maps, pixel_labels = pixels.of_counted()
    if not undefined_reason(pixel_labels):
        found["pixel_auroc"] = bootstrap_auroc(maps, pixel_labels)
    return found


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Return an HTML table without the columns that are empty; cells are text."""
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    header, rows = [header[column] for column in used], [[row[column] for column in used] for row in rows]
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _facts(results: Results) -> str:
    counts = results["images"]
    text = (
        f"Model {results['model']}, {printed_size(results['image_size'])} pixels; {counts['test']} test images, "
        f"{counts['good']} good"
    )
    text += f" and {counts['defective']} defective"
    if counts["in_pixel_metrics"] < counts["test"]:
        text += f"; pixel metrics over the {counts['in_pixel_metrics']} that are good or have a mask"
    return escape(text + ".")


def _metrics_table(results: Results, intervals: dict) -> str:
    published = read_json(PUBLISHED_PATH)
    rows = []
    for metric, name in _NAMES.items():
        low_high = intervals.get(metric)
        value = _number(results[metric]) or f"undefined: {results['undefined'].get(metric, '')}"
        interval = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
        if low_high == (1.0, 1.0):  # every redrawing of perfectly separated images is perfect, too
            interval = "not known: no overlap to redraw"
        cited = [_number(published[s].get(metric, {}).get(results["category"]), 3) for s in ("model_zoo", "paper_code")]
        rows.append([name, value, interval, *cited])
    return _table(["metric", "value", "95 % bootstrap interval", "model zoo", "paper's code"], rows)


def _rate(rate: Rate) -> str:
    if rate["value"] is None:
        return "none to count"
    low, high = rate["interval"]
    return f"{rate['value']:.3f} ({low:.3f} to {high:.3f})"


def _verdict_rows(counts: Decision) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the two tables on verdicts, of counts and of rates. The slider changes all but their names."""
    rows = [
        ["defective", str(counts["true_positives"]), str(counts["false_negatives"])],
        ["good", str(counts["false_positives"]), str(counts["true_negatives"])],
    ]
    if doubtful := counts.get("review"):  # which the rates take for good
        for row, count in zip(rows, (doubtful["defective"], doubtful["good"]), strict=True):
            row[2:] = [str(count), str(int(row[2]) - count)]
    rates = [
        ["recall", _rate(counts["recall"])],
        ["precision", _rate(counts["precision"])],
        ["false positive rate", _rate(counts["false_positive_rate"])],
    ]
    return rows, rates


def _decision(results: Results) -> str:
    parts = [] if results["decision"] else ["<p>The model has no threshold: it is not calibrated.</p>"]
    for counts, name, caption in (
        (results["decision"], "decision", f"Threshold from {results['threshold_source']}"),
        (results["best_f1_on_test_labels"], "bound", "Best F1 on these very labels: a bound, not a threshold to use"),
    ):
        if counts is None:
            continue
        rows, rates = _verdict_rows(counts)
        parts.append(f"<section id={name}><h3>{escape(caption)}: {counts['threshold']:.4g}</h3><div class=pair>")
        between = ["for review"] if "review" in counts else []
        parts.append(_table(["really", "called defective", *between, "called good"], rows))
        parts.append(_table(["rate", "value (95 % interval)"], rates) + "</div></section>")
    return "".join(parts)


def _slider(steps: list[Step], usual: int, places: list[float], results: Results) -> str:
    """Return the slider, and for its script what every step of it shows.

    Args:
        usual: the step of the set threshold.
        places: where in the histogram each step is.
    """
    contents = []
    for step, place in zip(steps, places, strict=True):
        cells = [cell for rows in _verdict_rows(step.decision) for row in rows for cell in row[1:]]
        rates = [_rate(step.decision[name]) for name in ("recall", "false_positive_rate")]
        contents.append(
            {
                "threshold": step.threshold,
                "times": f"{step.ratio:.4g}",
                "firstReview": step.first_review,
                "firstDefective": step.first_defective,
                "cells": cells,
                "recall": rates[0],
                "falsePositives": rates[1],
                "place": round(place, 2),
            }
        )
    owner = "the given threshold" if results["threshold_source"] == "--threshold" else "the model's threshold"
    return SLIDER.substitute(
        last=len(steps) - 1, usual=usual, owner=owner, steps=json.dumps(contents, separators=(",", ":"))
    )


def _defects_table(results: Results) -> str:
    rows = [
        [name, str(found["images"]), _number(found["pixel_auroc"]), _number(found["image_auroc"])]
        for name, found in results["by_defect"].items()
    ]
    return _table(["defect type", "images", "pixel AUROC", "image AUROC"], rows)


def _svg(figure: Figure, description: str) -> str:
    """Return a figure as inline SVG with a description for those who cannot see it."""
    text = io.StringIO()
    # a fixed salt: the same results give the same page
    with matplotlib.rc_context({"svg.hashsalt": "stpm", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return f'<figure role=img aria-label="{escape(description)}">{svg[svg.index("<svg") :]}</figure>'


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.unique(np.linspace(0, len(x) - 1, _CURVE_POINTS).round().astype(int))
    return x[rows], y[rows]


def _curves(scores: np.ndarray, labels: np.ndarray, pixels: Pixels) -> str:
    figures = []
    plots = []
    if not undefined_reason(labels):
        plots.append(("ROC of images", *roc_curve(labels, scores)[:2], "true positive rate", 1.0))
    maps, pixel_labels = pixels.of_counted()
    if not undefined_reason(pixel_labels):
        fpr, tpr, _ = roc_curve(pixel_labels.ravel(), maps.ravel())
        plots.append(("ROC of pixels", fpr, tpr, "true positive rate", 1.0))
        pro_curve = PixelRanking(pixels.maps, pixels.counted).pro_curve(pixels.labels)
        plots.append(("PRO", *pro_curve, "per-region overlap", PRO_MAX_FPR))
    for title, x, y, label, limit in plots:
        figure = Figure(figsize=(3.2, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(*_thinned(x, y), color="#1f5fa8")
        axes.set(title=title, xlabel="false positive rate", ylabel=label, xlim=(0, limit), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        figures.append(_svg(figure, f"{title} curve"))
    return "".join(figures)


def _training(record: "TrainingRecord") -> str:
    """Return the section on the losses per image of a training's epochs: of trained images, and of held-out ones."""
    epochs = record["epochs"]
    if not epochs:
        return ""
    # of a loss that is a mean over batches
    per_image = record["steps_per_epoch"] / record.get("train_pieces", record["train_images"])
    trained = np.array([epoch["loss"] * per_image for epoch in epochs])
    held_out = np.array([epoch.get("held_out_loss", np.nan) for epoch in epochs], float)
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    numbers, marker = [epoch["epoch"] for epoch in epochs], "." if len(epochs) < 30 else ""
    axes.plot(numbers, trained, color="#1f5fa8", marker=marker, label="training images")
    if np.isfinite(held_out).any():
        axes.plot(numbers, held_out, color="#2b7a3d", marker=marker, label="held-out good images")
    shown = np.concatenate([trained, held_out[np.isfinite(held_out)]])
    if 0 < 10 * shown.min() <= shown.max():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="epoch", ylabel="loss per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    curve = _svg(figure, "loss per image by epoch")
    told = trend([epoch.get("held_out_loss") for epoch in epochs], schedule=record["config"].get("lr_schedule"))
    text = f"<p>{escape(told[0].upper() + told[1:])}.</p>" if told else ""
    return f"<h2>Training</h2>{text}<div class=curves>{curve}</div>"


def _histogram(scores: np.ndarray, labels: np.ndarray, unit_name: str, ratios: list[float]) -> tuple[str, list[float]]:
    """Return the histogram of scores in their unit, and how far right in it the threshold of each step stands."""
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    low, high = scores.min(), scores.max()
    is_wide = 0 < 10 * low <= high  # in less than a decade a logarithmic axis has hardly a tick
    edges = np.geomspace(low, high * 1.0001, 31) if is_wide else np.histogram_bin_edges(scores.astype(float), 30)
    groups = [(scores[~labels], "good", "#2b7a3d"), (scores[labels], "defective", "#b3341f")]
    for values, name, colour in groups:
        axes.hist(values, edges.tolist(), alpha=0.6, label=name, color=colour)
    if ratios:
        axes.axvline(1, color="black", linestyle="--", label="threshold").set_gid("line")
    if is_wide:
        _logarithmic(axes)
    axes.set(xlabel=f"anomaly score; 1 is {unit_name}", ylabel="images")
    axes.legend()
    svg = _svg(figure, "histogram of the anomaly scores of good and defective images")
    inside = np.clip(ratios, *axes.get_xlim())
    pixels = axes.transData.transform(np.column_stack([inside, np.zeros(len(ratios))]))[:, 0]
    return svg, (pixels * _SVG_DPI / figure.dpi).tolist()


def _logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with as many plain numbers at its ticks as there is room for."""
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right < 5000 * left else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _options(names: list[str]) -> str:
    # with a value: that of text alone has its spaces collapsed
    return "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)


def _picture_size(width: int, height: int, count: int) -> tuple[int, int]:
    """Return width and height of a page's pictures: their own, unless there are very many pixels."""
    scale = min(1, math.sqrt(_PAGE_PIXELS / (count * width * height)))
    longest = max(width, height)
    return panel_size(width, height, longest=max(int(longest * scale), min(_TILE, longest)))


def _columns(aspect: float, *, with_masks: bool) -> int:
    """Return how many of a tile's panels stand side by side, by the width to height of the images."""
    if aspect >= _VERY_WIDE:
        return 1
    if with_masks:
        return 2 if aspect >= _WIDE else 4
    return 3


def _data_uri(pixels: np.ndarray, size: tuple[int, int], kind: str) -> str:
    """Return a picture, uint8 (H, W, 3) or (H, W), in a size as a data URI of kind "jpeg" or "png"."""
    picture = Image.fromarray(pixels)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    data = io.BytesIO()
    picture.save(data, kind, quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _panels(
    number: int,
    image: np.ndarray,
    mask: np.ndarray | None,
    one: np.ndarray,
    unit: float,
    min_area: int,
    size: tuple[int, int],
) -> str:
    """Return image, mask, anomaly map and outlined defect as an SVG each, so that the page holds every picture once.

    Args:
        unit: of the colours; what reaches it is outlined.
        min_area: of what is outlined, pixels of the map.
    """
    height, width = image.shape[:2]

    def picture(pixels: np.ndarray, kind: str, name: str = "") -> str:
        return f'<image {name}width={width} height={height} href="{_data_uri(pixels, size, kind)}" />'

    panels = {"image": picture(image, "jpeg", f"id=image-{number} ")}
    if mask is not None:
        panels["mask"] = picture(mask, "png")
    panels["anomaly map"] = picture(colour_map(one, unit), "jpeg")
    outline = outline_path(without_small_regions(one, DecisionRule(unit, min_area)), unit)
    # dark below bright, to be seen on any product
    panels["outlined defect"] = (
        f'<use href="#image-{number}" /><defs><path id=outline-{number} d="{outline}" /></defs>'
        f'<use class=dark href="#outline-{number}" /><use class=bright href="#outline-{number}" />'
    )
    return "".join(
        f'<svg role=img aria-label="{name}" viewBox="0 0 {width} {height}" width={size[0]} height={size[1]}>'
        f"{content}</svg>"
        for name, content in panels.items()
    )


def _legend(unit_name: str, size: tuple[int, int], images: np.ndarray, *, with_masks: bool) -> str:
    masks = " mask," if with_masks else ""
    text = f"Each: image,{masks} anomaly map, outline of what reaches 1. {scale_legend(unit_name).capitalize()}."
    if size != images.shape[2:0:-1]:
        text += f" For their number, pictures are reduced to {size[0]} x {size[1]} pixels."
    return text


def _tile(record: ImageRecord, sample: Sample, rank: int, panels: str, unit: float) -> str:
    """Return an image of the gallery, with its score in its unit and that score's rank."""
    wrong, called = "", record.get("verdict", "")
    if called in (GOOD, DEFECTIVE) and (called == DEFECTIVE) != sample.is_defective:
        wrong = "missed" if sample.is_defective else "false alarm"
    ratio = record["score"] / unit
    words = "for review" if called == REVIEW else called and f"called {called}"
    verdict = "".join(f", {word}" for word in (words, wrong) if word)
    data = {"score": f"{ratio:.6g}", "rank": str(rank), "type": sample.defect, "verdict": called, "wrong": wrong}
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    name = escape(record["file"])
    return (
        f'<figure class="tile {"wrong" if wrong else ""}" {attributes}>'
        f'<button type=button class=panels disabled aria-label="{name} at full size">{panels}</button>'
        f"<figcaption>{name}: score {ratio:.2f}<span>{verdict}</span></figcaption></figure>"
    )


def write_index(folder: Path) -> Path:
    """Write the index of all reports below a folder; return its path.

    Raises:
        InputError: there is none.
    """
    rows = []
    for path in sorted(folder.glob(f"*/{REPORT_NAME}")):
        results = read_results(path.with_name("results.json"))
        decision = results.get("decision")
        try:
            recall = _rate(decision["recall"]) if decision else ""
            alarms = _rate(decision["false_positive_rate"]) if decision else ""
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path.with_name('results.json')}: decision {decision!r} is damaged") from error
        name = path.parent.name
        cells = [_number(results[metric]) for metric in _NAMES] + [recall, alarms]
        link = f'<a href="{quote(name, errors="surrogateescape")}/{REPORT_NAME}">{escape(name)}</a>'
        rows.append(f"<tr><td>{link}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    if not rows:
        raise InputError(f"{folder}: holds no <category>/{REPORT_NAME}; test.py --report writes them")
    return _write_page(folder / REPORT_NAME, INDEX_PAGE.substitute(rows="\n".join(rows)))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser("Write the index of a sweep's reports.")
    parser.add_argument("--index", type=Path, required=True, metavar="FOLDER", help="folder of the category folders")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Write the index; return the exit status."""
    print(write_index(args.index))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
