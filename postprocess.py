"""Score the anomaly maps that the C++ program wrote: pixel- and image-level AUROC, PRO. Needs no mindspore."""

import sys
from argparse import Namespace
from pathlib import Path

from src.config import build_parser
from src.dataset import decode_masks, list_test
from src.evaluate import results_content, summary, three_lines
from src.manifest import check_matches, describe, read_manifest, read_maps
from src.model_file import choose_threshold, inspect_model
from src.utils import LOGGER, make_output_folder, run_entry_point, write_json

FLAG_NAMES = ("result_dir", "data_dir", "label_dir", "category", "mindir_path", "mask_rule", "threshold", "out_dir")


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    args = build_parser(__doc__, FLAG_NAMES).parse_args(argv)
    args.out_dir = args.out_dir or "."
    return args


def main(args: Namespace) -> int:
    """Score; return the exit status."""
    # 1. Do manifest, data set and results belong together?
    manifest = read_manifest(Path(args.label_dir))
    samples = list_test(Path(args.data_dir), args.category)
    check_matches(Path(args.label_dir), describe(samples, category=args.category, image_size=manifest.image_size))
    model = inspect_model(Path(args.mindir_path), category=args.category) if args.mindir_path else None
    maps = read_maps(Path(args.result_dir), manifest)
    folder = make_output_folder(Path(args.out_dir))

    # 2. Metrics
    masks = decode_masks(samples, image_size=manifest.image_size)
    about = {"category": args.category, "model": model.path.name if model else None,
             "image_size": manifest.image_size, "config_hash": model.config_hash if model else None}  # fmt: skip
    threshold, source = choose_threshold(args.threshold, model)
    results = results_content(samples, maps, masks, about=about, mask_rule=args.mask_rule, threshold=threshold,
                              threshold_source=source)  # fmt: skip

    # 3. Results
    write_json(folder / "results.json", results)
    LOGGER.info("%s\nmore in %s", summary(results), folder / "results.json")
    print(three_lines(args.category, results))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
