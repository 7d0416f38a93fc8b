"""The content of results.json: metrics of a test set's anomaly maps, verdicts, and every image's score."""

from typing import Literal, NotRequired, TypedDict

import numpy as np

from ..data.images import MASK_RULES, binary_mask
from ..data.samples import GOOD, Sample
from ..utils import command
from .decision import DecisionRule, image_scores
from .metrics import PixelRanking, auroc, undefined_reason
from .threshold import Decision, best_f1_threshold, confusion

Metric = Literal["pixel_auroc", "image_auroc", "pro"]


class DefectMetrics(TypedDict):
    """AUROC of one defect type against all good images; None where it is undefined."""

    images: int
    image_auroc: float | None
    pixel_auroc: float | None


class ImageCounts(TypedDict):
    """How many test images there are, and of which kind."""

    test: int
    good: int
    defective: int
    in_pixel_metrics: int  # good, or with a mask


class Metrics(TypedDict):
    """What is measured of a category, from 0 to 1; None where it is undefined."""

    pixel_auroc: float | None
    image_auroc: float | None
    pro: float | None
    mask_rule: str
    pixel_auroc_by_mask_rule: dict[str, float | None]
    by_defect: dict[str, DefectMetrics]
    images: ImageCounts
    undefined: dict[str, str]  # why, by metric


class Decisions(TypedDict):
    """Verdicts with the threshold, and with the best one for these very labels; None where there is none."""

    min_area: NotRequired[int]  # pixels of an anomaly map, where it is not 1
    decision: Decision | None
    best_f1_on_test_labels: Decision | None


class ImageRecord(TypedDict):
    """A test image: its file below ``test/``, its defect type and anomaly score; the rest with a threshold."""

    file: str
    defect: str
    score: float
    relative_score: NotRequired[float]  # as a share of the threshold
    verdict: NotRequired[str]


class About(TypedDict):
    """What was evaluated."""

    category: str
    model: str | None  # name of its file
    image_size: int | list[int]  # height and width where they differ
    config_hash: str | None  # of its training


class Results(About, Metrics, Decisions):
    """The content of a category's results.json."""

    threshold_source: str | None
    scores: list[ImageRecord]


class Timing(TypedDict):
    """The content of timing.json: what an evaluation took."""

    load_and_decode_seconds: float
    inference_seconds: float
    metrics_seconds: float
    test_images: int


def score_maps(
    maps: np.ndarray,
    masks: np.ndarray,
    samples: list[Sample],
    *,
    scores: np.ndarray | None = None,
    mask_rule: str = "half",
    counted: np.ndarray | None = None,
) -> Metrics:
    """Compute every metric of a category.

    Defective images without a mask count for image metrics only.

    Args:
        maps: float32 (N, H, W).
        masks: resized grey masks, uint8 (N, H, W).
        scores: of the images, float32 (N,), for the image metrics; None: the maxima of the maps.
        mask_rule: one of ``MASK_RULES``, for the pixel metrics.
        counted: which pixels count in the pixel metrics, bool (H, W); None: all.

    Returns:
        JSON-serialisable metrics; an undefined one is None, with its reason under "undefined".
    """
    defects = np.array([sample.defect for sample in samples])
    labels = defects != GOOD
    if scores is None:
        scores = image_scores(maps)
    has_pixel_truth = np.array([sample.has_pixel_truth for sample in samples])
    grey = masks[has_pixel_truth]
    pixel_labels = binary_mask(grey, mask_rule)
    ranking = PixelRanking(maps[has_pixel_truth], counted)
    undefined: dict[str, str] = {}

    def defined(name: str, value: float, reason: str | None) -> float | None:
        if reason is not None:
            undefined[name] = reason
            return None
        return value

    pixel_reason = undefined_reason(pixel_labels if counted is None else pixel_labels[:, counted])
    if pixel_reason and labels.any() and not has_pixel_truth[labels].any():
        pixel_reason = "no defective image has a mask"
    by_rule = {rule: ranking.auroc(binary_mask(grey, rule)) for rule in MASK_RULES}
    return {
        "pixel_auroc": defined("pixel_auroc", by_rule[mask_rule], pixel_reason),
        "image_auroc": defined("image_auroc", auroc(scores, labels), undefined_reason(labels)),
        "pro": defined("pro", ranking.per_region_overlap(pixel_labels), pixel_reason),
        "mask_rule": mask_rule,
        "pixel_auroc_by_mask_rule": {rule: None if np.isnan(value) else value for rule, value in by_rule.items()},
        "by_defect": {
            defect: _score_defect(defect, defects, scores, ranking, pixel_labels, has_pixel_truth)
            for defect in sorted(set(defects[labels].tolist()))
        },
        "images": {
            "test": len(samples),
            "good": int((~labels).sum()),
            "defective": int(labels.sum()),
            "in_pixel_metrics": int(has_pixel_truth.sum()),
        },
        "undefined": undefined,
    }


def _score_defect(
    defect: str,
    defects: np.ndarray,
    scores: np.ndarray,
    ranking: PixelRanking,
    pixel_labels: np.ndarray,
    has_pixel_truth: np.ndarray,
) -> DefectMetrics:
    """AUROC of one defect type against all good images; None where it is undefined.

    Args:
        defects: defect type of every image, (N,).
        ranking, pixel_labels: of the images that ``has_pixel_truth``, bool (N,), selects.
    """
    labels, rows = defects == defect, np.isin(defects, (defect, GOOD))
    pixel_auroc = ranking.auroc(pixel_labels, rows[has_pixel_truth])
    return {
        "images": int(labels.sum()),
        "image_auroc": None if undefined_reason(labels[rows]) else auroc(scores[rows], labels[rows]),
        "pixel_auroc": None if np.isnan(pixel_auroc) else pixel_auroc,
    }


def count_verdicts(scores: np.ndarray, labels: np.ndarray, rule: DecisionRule) -> Decision | None:
    """Count the verdicts that a rule gives; None without a threshold.

    Args:
        scores: (N,).
        labels: bool (N,), True for defective.
    """
    if rule.threshold is None:
        return None
    decision = confusion(scores, labels, rule.threshold)
    if rule.review is not None:
        doubtful = rule.is_doubtful(scores)
        decision["review"] = {
            "from": rule.review,
            "good": int((doubtful & ~labels).sum()),
            "defective": int((doubtful & labels).sum()),
        }
    return decision


def decisions(scores: np.ndarray, labels: np.ndarray, rule: DecisionRule) -> Decisions:
    """Count the verdicts that a rule gives, and those that the best threshold for these labels would have given.

    Args:
        scores: (N,).
        labels: bool (N,), True for defective.
    """
    best = best_f1_threshold(scores, labels)
    content: Decisions = {
        "decision": count_verdicts(scores, labels, rule),
        "best_f1_on_test_labels": None if best is None else confusion(scores, labels, best),
    }
    if rule.min_area > 1:
        content["min_area"] = rule.min_area
    return content


def summary(results: Results) -> str:
    """Return what else is worth a line: PRO, which images the pixel metrics cover, and the verdicts."""
    lines = [f"PRO (FPR up to 0.3): {_printed(results, 'pro')}"]
    covered, total = results["images"]["in_pixel_metrics"], results["images"]["test"]
    if covered < total:
        lines.append(f"pixel metrics: over the {covered} of {total} images that are good or have a mask")
    counts = results["decision"]
    if counts:
        lines.append(
            f"threshold {counts['threshold']:.4g}: {counts['true_positives']} of {results['images']['defective']} "
            "defective images found, "
            f"{counts['false_positives']} of {results['images']['good']} good ones called defective"
        )
        if doubtful := counts.get("review"):
            lines.append(
                f"review from {doubtful['from']:g} of the threshold: {doubtful['defective']} defective images, "
                f"{doubtful['good']} good ones"
            )
    else:
        lines.append(
            f"no threshold, no verdicts: the model is not calibrated for {printed_size(results['image_size'])} pixels "
            f"(--val_split, {command('calibrate')})"
        )
    return "\n".join(lines)


def format_result(category: str, results: Results) -> str:
    """Return the result in the specification's words: category, pixel-level and image-level AUROC."""
    pixel, image = _printed(results, "pixel_auroc"), _printed(results, "image_auroc")
    return (
        f"category:  {category}\nTotal pixel-level auc-roc score :  {pixel}\nTotal image-level auc-roc score :  {image}"
    )


def _printed(results: Results, name: Metric) -> str:
    if results[name] is None:
        return f"nan ({results['undefined'][name]})"
    return repr(results[name])


def printed_size(size: int | list[int]) -> str:
    """Return an image size of a JSON file as it is said: "256", or "320x1024"."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def image_records(samples: list[Sample], scores: np.ndarray, rule: DecisionRule) -> list[ImageRecord]:
    """Return what results.json says of each test image.

    Args:
        scores: by the rule, float32 (N,).
    """
    records = []
    for sample, score in zip(samples, scores.tolist(), strict=True):
        record: ImageRecord = {
            "file": f"{sample.defect}/{sample.path.name}",
            "defect": sample.defect,
            "score": score,
        }
        if verdict := rule.verdict(score):
            record |= {"relative_score": rule.relative(score), "verdict": verdict}
        records.append(record)
    return records


def result_scores(results: Results) -> np.ndarray:
    """Return the images' scores of a results.json: float32 (N,)."""
    return np.array([record["score"] for record in results["scores"]], np.float32)


def results_content(
    samples: list[Sample],
    maps: np.ndarray,
    masks: np.ndarray,
    *,
    about: About,
    rule: DecisionRule,
    mask_rule: str,
    counted: np.ndarray | None = None,
) -> Results:
    """Return the content of results.json: metrics, decisions and every image's score, after ``about``.

    Args:
        maps, masks, mask_rule, counted: as in ``score_maps``.
        rule: how maps become scores and verdicts.
    """
    labels = np.array([sample.is_defective for sample in samples])
    scores = rule.scores(maps)
    return {
        **about,
        **score_maps(maps, masks, samples, scores=scores, mask_rule=mask_rule, counted=counted),
        **decisions(scores, labels, rule),
        "threshold_source": None if rule.threshold is None else rule.source,
        "scores": image_records(samples, scores, rule),
    }
