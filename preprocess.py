"""Turn images into network inputs for the C++ program, with a manifest of what is what.

They are the test images of a category, or all images of a folder that holds no category folder.
"""

import sys
from argparse import Namespace
from pathlib import Path

from src.config import DEFAULT_IMAGE_SIZE, build_parser
from src.data.images import find_former_resizing
from src.data.samples import list_for_inference
from src.data.view import View
from src.exchange.manifest import check_inputs, check_matches, describe, write_inputs
from src.files import make_output_folder
from src.model.model_file import inspect_model
from src.utils import LOGGER, run_entry_point

FLAG_NAMES = ("data_dir", "img_dir", "category", "image_size", "mindir_path", "check")


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    return build_parser(__doc__, FLAG_NAMES).parse_args(argv)


def main(args: Namespace) -> int:
    """Write the inputs, or check those that are there; return the exit status."""
    # 1. What goes in
    view = View(args.image_size or DEFAULT_IMAGE_SIZE)
    if args.mindir_path:
        model = inspect_model(Path(args.mindir_path), category=args.category, image_size=args.image_size)
        view = model.view
    samples = list_for_inference(Path(args.data_dir), args.category)
    manifest = describe(samples, category=args.category, view=view)

    # 2. What an earlier call wrote, or the work itself
    if args.check:
        check_matches(Path(args.img_dir), manifest)
        check_inputs(Path(args.img_dir))
        find_former_resizing([sample.path for sample in samples], view)
        LOGGER.info("checked: %s holds the %d inputs of %s", args.img_dir, len(samples), args.category)
        return 0
    folder = make_output_folder(Path(args.img_dir))
    write_inputs(folder, samples, manifest)
    LOGGER.info("inputs: %d of %s, %dx%d, in %s", len(samples), args.category, *view.size, folder)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
