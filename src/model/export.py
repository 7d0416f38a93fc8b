"""Write an anomaly-map network in a format for other runtimes, and see that it computes the same there."""

import shutil
import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..files import removed_on_sigterm
from ..stpm import AnomalyMap
from ..utils import InputError, first_line
from .maps import Network

OUTPUT_NAME = "maps"
# Largest max|a - b| / max|b| between the maps of a checkpoint and of its export.
TOLERANCE = 1e-4


def write_model(
    network: AnomalyMap,
    path: Path,
    *,
    file_format: str,
    input_shape: tuple[int, ...],
    mindir_version: int | None = None,
) -> dict:
    """Export a network; return its inputs and outputs: names (None: by position), shapes, dtypes.

    And, of a MINDIR, the version of the format that the file bears. A library reads files of its own version and of
    those below (``load_mindir/anf_model_parser.cc`` of MindSpore): MindSpore 2.10 writes and reads 3, MindSpore Lite
    2.0 reads 1. For the operators of this network the versions do not differ.

    Args:
        mindir_version: None for this MindSpore's own.

    Raises:
        InputError: MindSpore cannot write the file.
    """
    about: dict[str, object] = {}

    def stamp(model: "ModelProto") -> None:  # noqa: F821 - a class that MindSpore makes at run time
        if mindir_version is not None:
            model.mind_ir_version = mindir_version
        about["mindir_version"] = model.mind_ir_version
        by_output = {node.output[0]: node for node in model.graph.node}
        (output,) = model.graph.output
        # the output is Depend(map, state); runtimes name it after the operator that computes the map
        by_output[by_output[output.name].input[0]].domain = OUTPUT_NAME

    network.set_train(False)
    options = {"custom_func": stamp} if file_format == "MINDIR" else {}
    with tempfile.TemporaryDirectory(prefix="stpm-") as folder, removed_on_sigterm(Path(folder)):
        made = Path(folder, "model").with_suffix(path.suffix)  # MindSpore refuses paths with a space or accents in them
        try:
            ms.export(network, Tensor(np.zeros(input_shape, np.float32)), file_name=str(made), file_format=file_format,
                      **options)  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            hint = "; TMPDIR names another folder for temporary files" if isinstance(error, OSError) else ""
            raise InputError(f"{made}: cannot be exported: {first_line(error)}{hint}") from error
        shutil.copyfile(made, path)  # readable for all: the program on the line may run as another user
    batch, _, height, width = input_shape
    # MindSpore numbers the values of an ONNX file, so that its output has no lasting name
    output_name = None if file_format == "ONNX" else OUTPUT_NAME
    about["inputs"] = [{"name": "images", "shape": list(input_shape), "dtype": "float32"}]
    about["outputs"] = [{"name": output_name, "shape": [batch, 1, height, width], "dtype": "float32"}]
    return about


def check_same_maps(exported: Network, reference: Network, *, input_shape: tuple[int, ...]) -> float:
    """Compare two networks on a fixed random batch; return max|a - b| / max|b|.

    Raises:
        InputError: it is above ``TOLERANCE``, or a map is not finite.
    """
    images = np.random.default_rng(0).standard_normal(input_shape).astype(np.float32)
    difference = largest_relative_difference(exported(images), reference(images))
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model's maps differ from the checkpoint's by {difference:.1e} (relative), "
            f"more than {TOLERANCE:.0e}: it was not kept"
        )
    return difference


def largest_relative_difference(found: np.ndarray, reference: np.ndarray) -> float:
    """Return max|found - reference| / max|reference|; nan or infinity where either holds one."""
    if found.shape != reference.shape:
        raise ValueError(f"shapes differ: {found.shape} and {reference.shape}")
    return float(np.abs(found - reference).max() / np.abs(reference).max())
