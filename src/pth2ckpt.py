"""Convert a PyTorch ResNet-18 state_dict (.pth) to a MindSpore checkpoint (.ckpt) for the teacher.

python src/pth2ckpt.py --pth_path resnet18-f37072fd.pth --ckpt_path resnet18.ckpt
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a file, as the pages show it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import src

    __package__ = src.__name__

from .config import build_parser
from .device import prepare_environment
from .files import atomic_path, check_file, file_sha256, make_output_folder
from .torch_file import read_state_dict
from .utils import LOGGER, InputError, run_entry_point

# torch's batch norm entry -> MindSpore's
_BN_ENTRIES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def mindspore_name(name: str) -> str | None:
    """Translate a torchvision parameter name; None for an entry that MindSpore has no use for."""
    if name.endswith("num_batches_tracked"):
        return None
    name = name.replace("downsample", "down_sample_layer")
    module, _, entry = name.rpartition(".")
    if re.search(r"(^|\.)bn\d$|down_sample_layer\.1$", module):
        entry = _BN_ENTRIES.get(entry, entry)
    return f"{module}.{entry}"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a PyTorch file of weights as float32 arrays by torchvision's names.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    # torchvision's names end in the beginning of their SHA-256: has the download come through?
    named = re.search(r"-([0-9a-f]{8})$", path.stem)
    if named and not file_sha256(path).startswith(named[1]):
        raise InputError(f"--pth_path {path}: its SHA-256 does not begin with {named[1]}; download it again")
    return {name.removeprefix("module."): array for name, array in read_state_dict(path).items()}


def convert(pth_path: Path, ckpt_path: Path) -> None:
    """Convert a file; everything that MindSpore has a name for is kept, the trunk must be complete.

    Raises:
        InputError: the input cannot be read or is no ResNet-18, or the output cannot be written.
    """
    if ckpt_path.suffix != ".ckpt":
        raise InputError(f"--ckpt_path {ckpt_path}: expected a name that ends in .ckpt")
    check_file(pth_path, "PyTorch")
    make_output_folder(ckpt_path.parent)
    state = read_arrays(pth_path)
    prepare_environment()
    import mindspore as ms

    from .checkpoint import check_is_resnet18, load_checked, named_parameters
    from .resnet import ResNet18Trunk

    arrays = {mindspore_name(name): array for name, array in state.items()}
    dropped = len(state) - len(arrays) + (None in arrays)
    arrays.pop(None, None)
    parameters, source = named_parameters(ResNet18Trunk()), f"--pth_path {pth_path}"
    check_is_resnet18(parameters, arrays, source=source)
    beyond = load_checked(parameters, arrays, source=source)
    with atomic_path(ckpt_path) as temporary:
        ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(temporary))
    LOGGER.info(
        "%s: %d entries of the trunk, %d beyond it (layer4, head, ...), %d dropped (batch counters)",
        ckpt_path,
        len(arrays) - beyond,
        beyond,
        dropped,
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--pth_path", type=Path, required=True, help="PyTorch file: a state_dict of torchvision's resnet18"
    )
    parser.add_argument("--ckpt_path", type=Path, required=True, help="MindSpore checkpoint to write (.ckpt)")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Convert; return the exit status."""
    convert(args.pth_path, args.ckpt_path)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
