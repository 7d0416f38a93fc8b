"""Score the anomaly maps that the C++ program wrote: pixel- and image-level AUROC, PRO. Needs no mindspore."""

import sys
from argparse import Namespace
from pathlib import Path

from src.config import build_parser
from src.dataset import decode_masks, list_test
from src.evaluate import image_records, score_maps, three_lines
from src.manifest import check_matches, describe, read_manifest, read_maps
from src.model_file import inspect_model
from src.utils import LOGGER, make_output_folder, run_entry_point, write_json

FLAG_NAMES = ("result_dir", "data_dir", "label_dir", "category", "mindir_path", "mask_rule", "out_dir")


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
    metrics = score_maps(maps, masks, samples, mask_rule=args.mask_rule)

    # 3. Results
    about = {"category": args.category, "model": model.path.name if model else None,
             "image_size": manifest.image_size, "config_hash": model.config_hash if model else None}  # fmt: skip
    write_json(folder / "results.json", about | metrics | {"scores": image_records(samples, maps)})
    LOGGER.info("PRO (FPR up to 0.3): %s; more in %s", metrics["pro"], folder / "results.json")
    print(three_lines(args.category, metrics))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
