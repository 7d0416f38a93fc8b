"""Export a checkpoint as one network, images in and anomaly maps out, for other runtimes: MINDIR, AIR or ONNX."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from src.config import build_parser, resolve_aliases
from src.device import pinned, set_up_device, versions
from src.files import atomic_path, check_checkpoint_file, make_output_folder
from src.model.maps import Network
from src.model.model_file import EXPORTED_SUFFIXES, inspect_model, load_exported, onnxruntime_is_installed
from src.model.selftest import make_selftest
from src.model.sidecar import describe_file, new_sidecar, record_export
from src.utils import LOGGER, InputError, run_entry_point

FLAG_NAMES = (
    "ckpt_file", "category", "file_format", "mindir_version", "batch_size", "image_size", "out_size", "num_class",
    "out_dir", "device_target", "device_id",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__, FLAG_NAMES)
    args = parser.parse_args(argv)
    resolve_aliases(parser, args, "image_size", "out_size", required=False)
    if args.mindir_version == "native" and args.file_format != "MINDIR":
        parser.error(f"--mindir_version native: is of MINDIR files, not of --file_format {args.file_format}")
    args.batch_size = args.batch_size or 1
    args.out_dir = args.out_dir or "."
    # other devices round the inputs of convolutions to float16: neither would the maps agree to TOLERANCE there, nor
    # could the self-test's values be computed
    if args.device_target == "auto" and args.file_format != "AIR":
        args.device_target = "CPU"
    return args


def main(args: Namespace) -> int:
    """Export; return the exit status."""
    # 1. Inputs, checked before the slow imports
    check_checkpoint_file(Path(args.ckpt_file))
    checkpoint = inspect_model(
        Path(args.ckpt_file), category=args.category, image_size=args.image_size, batch_size=args.batch_size
    )
    folder = make_output_folder(Path(args.out_dir))
    path = folder / f"{args.category}.{args.file_format.lower()}"
    view = checkpoint.view
    input_shape = (args.batch_size, 3, *view.size)

    # 2. The network, batch norm folded
    device = set_up_device(args.device_target, args.device_id, own_convolutions=True)
    if args.file_format == "AIR" and device != "Ascend":
        raise InputError(f"--file_format AIR: needs an Ascend device, and this is {device}; choose MINDIR or ONNX")
    from src.backend import StpmNetwork, network_for_export
    from src.checkpoint import load_stpm
    from src.model.export import write_model
    from src.stpm import STPM

    stpm = load_stpm(STPM(), checkpoint.path, num_class=args.num_class)
    network = network_for_export(stpm, view=view)

    # 3. Write, verify, say what it is in the JSON beside it, and only then give the file its name
    sidecar = checkpoint.sidecar or new_sidecar(category=args.category, view=view, config=None)
    with atomic_path(path) as temporary:
        version = None if args.mindir_version == "native" else int(args.mindir_version)
        facts = write_model(network, temporary, file_format=args.file_format, input_shape=input_shape,
                            mindir_version=version)  # fmt: skip
        reference = StpmNetwork(stpm, view=view)
        difference = verify(temporary, reference, input_shape)
        facts |= {"file_format": args.file_format, "batch_size": args.batch_size, "versions": versions(),
                  "largest_relative_difference": difference}  # fmt: skip
        sidecar = sidecar.at_image_size(view.size)
        if device == "CPU":
            sidecar = replace(sidecar, selftest=make_selftest(reference, size=view.size))
        else:
            LOGGER.warning("warning: no values for a self-test: %s may not compute in float32", device)
        record_export(path, temporary, sidecar, checkpoint=describe_file(checkpoint.path), facts=facts)
    LOGGER.info("exported: %s", path)
    return 0


def verify(path: Path, reference: Network, input_shape: tuple[int, ...]) -> float | None:
    """Compare an exported model's maps with the checkpoint's; return the difference, None without a runtime for it."""
    from src.model.export import TOLERANCE, check_same_maps

    if path.suffix not in EXPORTED_SUFFIXES:
        LOGGER.warning("not verified: no runtime here reads %s", path.suffix[1:].upper())
        return None
    if path.suffix == ".onnx" and not onnxruntime_is_installed():
        LOGGER.warning("not verified: ONNX Runtime is not installed (pip install %s)", pinned("onnxruntime"))
        return None
    difference = check_same_maps(load_exported(path), reference, input_shape=input_shape)
    LOGGER.info("verified: largest relative difference of the maps %.1e, allowed %.0e", difference, TOLERANCE)
    return difference


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
