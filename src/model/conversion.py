"""The JSON of a model that the vendor's tool converted for Ascend. ``scripts/convert_ascend.sh`` calls this program.

No mindspore here. Such a file runs in the C++ program alone.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from ..config import build_parser
from ..files import atomic_path, check_file, make_output_folder
from ..utils import LOGGER, InputError, run_entry_point
from .sidecar import Conversion, ExportFacts, Sidecar, read_export, read_sidecar, record_conversion, sidecar_path


def converted_sidecar(
    source: Path, out: Path, *, precision: str, lite_version: str, soc_version: str | None
) -> tuple[Sidecar, ExportFacts]:
    """Return what the JSON of a converted model says: that of its source, without the threshold, and the file's part.

    The threshold goes since a device that computes in another precision gives other scores; it is calibrated there.

    Raises:
        InputError: the source is damaged, of no known origin or converted already, or ``out`` is another model's.
    """
    if source.suffix != ".mindir":
        raise InputError(f"MINDIR_PATH {source}: expected a .mindir file")
    if out.suffix != ".mindir":
        raise InputError(f"OUT {out}: expected a name that ends in .mindir")
    check_file(source, "MINDIR")
    sidecar, facts = read_export(source, category=None)
    if "converted" in facts:
        raise InputError(f"MINDIR_PATH {source}: is converted already; give the model that export.py wrote")
    if sidecar_path(out).resolve() == sidecar_path(source).resolve():
        raise InputError(f"OUT {out}: {sidecar_path(out).name} is the source's; choose another name")
    there = read_sidecar(out, category=None)
    if there and "converted" not in there.exports.get(out.name, {}):
        raise InputError(f"OUT {out}: {sidecar_path(out).name} describes another model; choose another name")
    made: Conversion = {
        "from_sha256": facts["sha256"],
        "precision": precision,
        "soc_version": soc_version,
        "mindspore_lite": lite_version,
    }
    own: ExportFacts = {**facts, "largest_relative_difference": None, "converted": made}
    return replace(sidecar, threshold=None, calibration=None), own


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``python -m src.model.conversion``."""
    parser = build_parser("Give a converted model its name, and a JSON beside it.")
    parser.add_argument("--mindir_path", type=Path, required=True, metavar="FILE", help="model that was converted")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="name that the converted one gets")
    parser.add_argument("--precision", required=True, help="precision mode that it was converted with")
    parser.add_argument("--lite_version", required=True, help="version of MindSpore Lite that converted it")
    parser.add_argument("--soc_version", help="chip that it is for, where that was given")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--check", action="store_true", help="only check the names, before anything slow")
    step.add_argument("--converted", type=Path, metavar="FILE", help="what the converter wrote")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Check, or enter; return the exit status."""
    sidecar, facts = converted_sidecar(
        args.mindir_path,
        args.out,
        precision=args.precision,
        lite_version=args.lite_version,
        soc_version=args.soc_version,
    )
    make_output_folder(args.out.parent)
    if args.check:
        return 0
    with atomic_path(args.out) as temporary:
        shutil.copyfile(args.converted, temporary)
        record_conversion(args.out, temporary, sidecar, facts)
    LOGGER.info("converted: %s", args.out)
    LOGGER.info("threshold: none; one is calibrated on the device, in whose precision scores differ (docs/ascend.md)")
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
