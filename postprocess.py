"""Score the anomaly maps that the C++ program wrote. Needs no mindspore.

With labels: pixel- and image-level AUROC, PRO, in results.json. Without: score and verdict per image, in scores.csv.
"""

import csv
import sys
from argparse import Namespace
from pathlib import Path

from src.config import build_parser, resolve_aliases
from src.data.arrays import decode_masks
from src.data.images import find_former_resizing
from src.data.samples import list_for_inference
from src.evaluation.decision import DecisionRule
from src.evaluation.results import About, format_result, results_content, summary
from src.exchange.manifest import (
    Manifest,
    check_matches,
    describe,
    iterate_maps,
    read_manifest,
    read_maps,
)
from src.exchange.origin import check_origin
from src.exchange.scores import read_milliseconds
from src.files import atomic_path, make_output_folder, write_json
from src.model.model_file import choose_rule, inspect_model
from src.utils import LOGGER, InputError, run_entry_point

FLAG_NAMES = (
    "result_dir", "data_dir", "label_dir", "category", "mindir_path", "image_size", "out_size", "mask_rule",
    "threshold", "review", "out_dir",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__, FLAG_NAMES)
    args = parser.parse_args(argv)
    resolve_aliases(parser, args, "image_size", "out_size", required=False)
    args.out_dir = args.out_dir or "."
    return args


def main(args: Namespace) -> int:
    """Score; return the exit status."""
    # 1. Do manifest, data set and results belong together?
    manifest = read_manifest(Path(args.label_dir))
    if args.image_size not in (None, manifest.view.size):
        raise InputError(
            f"--image_size {args.image_size}: the inputs in {args.label_dir} are of {manifest.view.size} pixels; "
            "leave the flag out, or run preprocess.py and the inference again, with a model of that size"
        )
    samples = list_for_inference(Path(args.data_dir), args.category)
    check_matches(Path(args.label_dir), describe(samples, category=args.category, view=manifest.view))
    model = None
    if args.mindir_path:
        model = inspect_model(Path(args.mindir_path), category=args.category, image_size=manifest.view.size)
    check_origin(Path(args.result_dir), Path(args.label_dir), model.path if model else None)
    rule = choose_rule(model, threshold=args.threshold, review=args.review)
    folder = make_output_folder(Path(args.out_dir))
    if not manifest.is_labelled:
        find_former_resizing([sample.path for sample in samples], manifest.view)
        write_scores(folder / "scores.csv", manifest, Path(args.result_dir), rule)
        return 0

    # 2. Metrics
    maps = read_maps(Path(args.result_dir), manifest)
    masks = decode_masks(samples, view=manifest.view)
    about: About = {
        "category": args.category,
        "model": model.path.name if model else None,
        "image_size": manifest.view.size.to_json(),
        "config_hash": model.config_hash if model else None,
    }
    results = results_content(samples, maps, masks, about=about, rule=rule, mask_rule=args.mask_rule,
                              counted=manifest.view.counted)  # fmt: skip

    # 3. Results
    write_json(folder / "results.json", results)
    LOGGER.info("%s\nmore in %s", summary(results), folder / "results.json")
    print(format_result(args.category, results))
    return 0


def write_scores(path: Path, manifest: Manifest, result_dir: Path, rule: DecisionRule) -> None:
    """Write source file, score, verdict (where there is a threshold) and milliseconds of every image."""
    milliseconds = read_milliseconds(result_dir, manifest)
    counts = dict.fromkeys(rule.verdicts, 0)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("source", "score", "relative_score", "verdict", "milliseconds"))
        for source, one, duration in zip(
            manifest.sources, iterate_maps(result_dir, manifest), milliseconds, strict=True
        ):
            score = float(rule.scores(one[None])[0])
            verdict = rule.verdict(score)
            if verdict:
                counts[verdict] += 1
            writer.writerow((source, score, rule.relative(score) if verdict else "", verdict, duration))
    said = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no threshold, no verdicts"
    print(f"{len(manifest.sources)} images, {said}: {path}")


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
