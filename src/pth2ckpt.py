"""Convert a PyTorch ResNet-18 state_dict (.pth) to a MindSpore checkpoint (.ckpt) for the teacher; or fetch it first.

python -m src.pth2ckpt --download resnet18 --ckpt_path resnet18.ckpt
python -m src.pth2ckpt --pth_path my_resnet18.pth --ckpt_path resnet18.ckpt

PyTorch is not needed.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a file, as the pages show it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import src

    __package__ = src.__name__

from .config import build_parser
from .device import import_mindspore, prepare_environment
from .download import Published, fetch
from .files import atomic_path, check_file, file_sha256, make_output_folder
from .torch_file import read_state_dict
from .utils import LOGGER, InputError, run_entry_point

# The address is that of torchvision/models/resnet.py, ResNet18_Weights.IMAGENET1K_V1. Its name holds the beginning of
# the SHA-256; the rest, and the size, are those of the file that stands there.
TEACHERS = {
    "resnet18": Published(
        address="https://download.pytorch.org/models/resnet18-f37072fd.pth",
        size=46_830_571,
        sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
}
MIRROR = "STPM_MIRROR"  # the environment variable that stands in for --mirror
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
    check_file(pth_path, "PyTorch")
    make_output_folder(ckpt_path.parent)
    state = read_arrays(pth_path)
    prepare_environment()
    ms = import_mindspore()
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


def mirror_address(text: str) -> str:
    """Check the address of a mirror.

    Raises:
        InputError: it is none that this program can fetch from.
    """
    if not re.fullmatch(r"https?://[!-~]+", text, re.IGNORECASE):
        raise InputError(f"mirror {text!r}: expected the address of a folder, such as https://mirror.example/models")
    return text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--download",
        choices=tuple(TEACHERS),
        help="fetch torchvision's weights of this network, trained on ImageNet, and convert them; the proxies are "
        "those of http_proxy, https_proxy and no_proxy",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="with --download: address of a folder that holds the file under its name; default: that of the "
        f"environment variable {MIRROR}, else the publisher's",
    )
    parser.add_argument(
        "--pth_path",
        type=Path,
        metavar="FILE",
        help="PyTorch file: a state_dict of torchvision's resnet18. With --download: where it is kept; default: beside "
        "--ckpt_path, under the publisher's name",
    )
    parser.add_argument(
        "--ckpt_path", type=Path, required=True, metavar="FILE", help="MindSpore checkpoint to write (.ckpt)"
    )
    args = parser.parse_args(argv)
    if not args.download and not args.pth_path:
        parser.error("--pth_path is required, or --download to fetch the file")
    if args.mirror is not None and not args.download:
        parser.error("--mirror goes with --download")
    return args


def main(args: argparse.Namespace) -> int:
    """Fetch the file if that is asked for, and convert it; return the exit status."""
    if args.ckpt_path.suffix != ".ckpt":
        raise InputError(f"--ckpt_path {args.ckpt_path}: expected a name that ends in .ckpt")
    pth_path = args.pth_path
    if args.download:
        mirror = args.mirror if args.mirror is not None else os.environ.get(MIRROR) or None
        mirror = None if mirror is None else mirror_address(mirror)
        teacher = TEACHERS[args.download]
        pth_path = pth_path or args.ckpt_path.with_name(teacher.name)
        make_output_folder(args.ckpt_path.parent)
        make_output_folder(pth_path.parent)
        fetch(teacher, pth_path, mirror=mirror)
    convert(pth_path, args.ckpt_path)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
