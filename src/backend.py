"""The one door to the two forms of the network: MindSpore's operators, and on CPU the faster one of ``src.cpu``.

Whoever trains, evaluates or exports asks here, and need not know which form it gets: nobody else decides that. The
cells below are the faster form as operators of MindSpore.
"""

import math
from collections.abc import Callable, Collection
from functools import partial
from itertools import accumulate, pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .checkpoint import load_checked, named_arrays, named_parameters
from .cpu import onednn
from .cpu.parallel import Buffers, Shape
from .cpu.trunk import SCALES, FrozenTrunk, TrainingPass, fold, frozen_features, frozen_layer_maps, student_step
from .data.view import View
from .loss import NORM_EPS, StudentLoss
from .portable import PortableLayerMaps, portable_operators
from .resnet import BN_EPS, BN_MOMENTUM, DEFAULT_OPERATORS, ChannelBias, Operators, ResNet18Trunk
from .stpm import STPM, AnomalyMap, LayerMaps


def _is_fast_on_cpu() -> bool:
    """Return whether the device in use is the CPU and oneDNN is there."""
    return ms.get_context("device_target") == "CPU" and onednn.is_available()


def _freeze(trunk: ResNet18Trunk) -> FrozenTrunk:
    return FrozenTrunk(named_arrays(trunk), eps=BN_EPS)


class FrozenFeatures(nn.Cell):
    """A trunk's features with the weights that it had when it was frozen; in evaluation, without a gradient.

    Inputs: images, float32 (N, 3, H, W). Outputs: features at strides 4, 8 and 16, float32 (N, C, h, w).
    """

    def __init__(self, trunk: ResNet18Trunk):
        super().__init__()
        self.frozen: list[FrozenTrunk] = []
        self.freeze(trunk)
        self.features = _features_operator(self.frozen)

    def freeze(self, trunk: ResNet18Trunk) -> None:
        """Take over the weights that a trunk has now."""
        self.frozen[:] = [_freeze(trunk)]

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.features(ops.stop_gradient(images))


def _features_operator(frozen: list[FrozenTrunk]) -> ops.Custom:
    def shapes(images: Shape) -> tuple[Shape, ...]:
        return tuple((images[0], channels, *(side // stride for side in images[2:])) for channels, stride in SCALES)

    def dtypes(images: ms.Type) -> tuple[ms.Type, ...]:
        return (images,) * len(SCALES)

    def forward(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return frozen_features(*frozen, images)

    return ops.Custom(forward, shapes, dtypes, func_type="pyfunc")


class FrozenLayerMaps(nn.Cell):
    """What ``src.stpm.LayerMaps`` computes, with the weights that the trunks had when they were frozen.

    Inputs: images, float32 (N, 3, H, W). Outputs: layer maps at strides 4, 8 and 16, float32 (N, 1, h, w).
    """

    def __init__(self, teacher: ResNet18Trunk, student: ResNet18Trunk, *, norm_eps: float):
        super().__init__()
        self.frozen: list[FrozenTrunk] = []
        self.freeze(teacher, student)
        self.layer_maps = _layer_maps_operator(self.frozen, norm_eps)

    def freeze(self, teacher: ResNet18Trunk, student: ResNet18Trunk) -> None:
        """Take over the weights that the trunks have now."""
        self.frozen[:] = _freeze(teacher), _freeze(student)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.layer_maps(images)


def _layer_maps_operator(pair: list[FrozenTrunk], norm_eps: float) -> ops.Custom:
    def shapes(images: Shape) -> tuple[Shape, ...]:
        return tuple((images[0], 1, *(side // stride for side in images[2:])) for _, stride in SCALES)

    def dtypes(images: ms.Type) -> tuple[ms.Type, ...]:
        return (images,) * len(SCALES)

    def forward(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return frozen_layer_maps(*pair, images, norm_eps=norm_eps)

    return ops.Custom(forward, shapes, dtypes, func_type="pyfunc")


class FastStudentLoss(nn.Cell):
    """What ``src.loss.StudentLoss`` computes in training, and the update of the moving statistics.

    The operator takes all weights and all moving statistics, and gives all gradients, as one vector each: it cannot
    take a tuple. The updated statistics that it gives are arrays of their own: if the graph had to cut them out of a
    vector, or to update them itself, it would take longer to compile.

    Inputs: images, float32 (N, 3, H, W), normalised teacher features at strides 4, 8 and 16 and, where some positions
    do not count, which ones do. Outputs: scalar.

    Args:
        dtype: see ``src.cpu.trunk.student_step``.
    """

    def __init__(self, student: ResNet18Trunk, *, norm_eps: float, dtype: np.dtype):
        super().__init__()
        self.student = student
        named = dict(student.parameters_and_names())
        self.weights = ms.ParameterTuple([p for p in named.values() if p.requires_grad])
        self.statistics = ms.ParameterTuple([p for p in named.values() if not p.requires_grad])
        self.step = _step_operator(named, norm_eps, dtype)
        self.all_count = Tensor(np.ones((1,), np.float32))

    def construct(
        self, images: Tensor, teacher_4: Tensor, teacher_8: Tensor, teacher_16: Tensor, *counted: Tensor
    ) -> Tensor:
        # always as many inputs: its gradient cannot have a variable number of parameters
        masks = flat(counted) if counted else self.all_count
        weights, statistics = flat(self.weights), ops.concat(self.statistics)
        outputs = self.step(images, teacher_4, teacher_8, teacher_16, weights, statistics, masks)
        for i in range(len(self.statistics)):
            ops.assign(self.statistics[i], outputs[2 + i])
        return ops.reduce_sum(outputs[0])


def flat(parameters: tuple[Tensor, ...]) -> Tensor:
    """Return all values in one vector."""
    parts = []
    for parameter in parameters:
        parts.append(ops.reshape(parameter, (-1,)))
    return ops.concat(parts)


def _step_operator(named: dict[str, Parameter], norm_eps: float, dtype: np.dtype) -> ops.Custom:
    shapes_of_weights = {name: p.shape for name, p in named.items() if p.requires_grad}
    shapes_of_statistics = {name: p.shape for name, p in named.items() if not p.requires_grad}
    kept = np.float32(BN_MOMENTUM)
    new = np.float32(1) - kept  # so that both add up to 1 in float32 too

    def forward(
        images: np.ndarray, t4: np.ndarray, t8: np.ndarray, t16: np.ndarray,
        weights: np.ndarray, statistics: np.ndarray, masks: np.ndarray,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        teacher = t4, t8, t16
        named_weights = dict(zip(shapes_of_weights, _cut(weights, shapes_of_weights.values()), strict=True))
        losses, gradients, batch = student_step(
            images,
            teacher,
            named_weights,
            eps=BN_EPS,
            norm_eps=norm_eps,
            counted=_masks_of(teacher, masks),
            dtype=dtype,
        )
        gradient = np.concatenate([gradients[name].ravel() for name in shapes_of_weights])
        moving = zip(shapes_of_statistics, _cut(statistics, shapes_of_statistics.values()), strict=True)
        return losses, gradient, *(array * kept + batch[name] * new for name, array in moving)

    def shapes(
        images: Shape, t4: Shape, t8: Shape, t16: Shape, weights: Shape, statistics: Shape, masks: Shape
    ) -> tuple[Shape, ...]:
        return (images[0],), weights, *shapes_of_statistics.values()

    def dtypes(*inputs: ms.Type) -> tuple[ms.Type, ...]:
        return (ms.float32,) * (2 + len(shapes_of_statistics))

    def gradients(
        images: Tensor, t4: Tensor, t8: Tensor, t16: Tensor, weights: Tensor, statistics: Tensor, masks: Tensor,
        output: tuple[Tensor, ...], gradient: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        # gradient[0]: with respect to each image's loss; the losses are summed, so that it is the same number for all.
        # Nobody asks for gradients with respect to anything but the weights
        zeros = ops.zeros_like(images), ops.zeros_like(t4), ops.zeros_like(t8), ops.zeros_like(t16)
        return (*zeros, output[1] * gradient[0][0], ops.zeros_like(statistics), ops.zeros_like(masks))

    return ops.Custom(forward, shapes, dtypes, func_type="pyfunc", bprop=gradients)


def _masks_of(teacher: tuple[np.ndarray, ...], masks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return which positions count at each scale, float32 (N, 1, h, w), of one vector; nothing where all do."""
    if masks.size == 1:
        return ()
    return _cut(masks, [(len(level), 1, *level.shape[2:]) for level in teacher])


def _cut(vector: np.ndarray, shapes: Collection[Shape]) -> tuple[np.ndarray, ...]:
    """Return the arrays of these shapes that one vector holds one after the other."""
    bounds = accumulate(map(math.prod, shapes), initial=0)
    return tuple(vector[low:high].reshape(shape) for (low, high), shape in zip(pairwise(bounds), shapes, strict=True))


def student_loss(student: ResNet18Trunk, *, bfloat16: bool = False) -> nn.Cell:
    """Return the loss of a student in training. Inputs: as of ``src.loss.StudentLoss``. Outputs: scalar.

    Args:
        bfloat16: compute the trunk in it, where ``onednn.no_bfloat16_reason`` has none to give.
    """
    if not _is_fast_on_cpu():
        return StudentLoss(student)
    return FastStudentLoss(student, norm_eps=NORM_EPS, dtype=onednn.BFLOAT16 if bfloat16 else onednn.FLOAT32)


def teacher_features(teacher: ResNet18Trunk) -> nn.Cell:
    """Return a cell that computes a teacher's features, with weights that do not change from now on.

    Inputs: images, float32 (N, 3, H, W). Outputs: features at strides 4, 8 and 16, float32 (N, C, h, w).
    """
    return FrozenFeatures(teacher) if _is_fast_on_cpu() else teacher


def batch_statistics(trunk: ResNet18Trunk) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the batch statistics that every batch norm of a trunk sees in training.

    Its argument: float32 (N, 3, H, W). Its result: mean and variance, by the names of the moving ones.
    """
    weights = named_arrays(trunk)
    if _is_fast_on_cpu():

        def compute_fast(images: np.ndarray) -> dict[str, np.ndarray]:
            with Buffers() as buffers:
                training = TrainingPass(weights, buffers, eps=BN_EPS)
                training.forward(images)
            return training.statistics

        return compute_fast

    # momentum 0: after a batch the stored statistics are that batch's own
    probe = ResNet18Trunk(norm=partial(nn.BatchNorm2d, eps=BN_EPS, momentum=0.0))
    convolutions = {name: array for name, array in weights.items() if name.endswith("weight")}
    load_checked(named_parameters(probe), named_arrays(probe) | convolutions, source="batch statistics")
    probe.set_train(True)

    def compute(images: np.ndarray) -> dict[str, np.ndarray]:
        probe(Tensor(images))
        return {name: array for name, array in named_arrays(probe).items() if "moving_" in name}

    return compute


def fast_layer_maps(stpm: STPM) -> FrozenLayerMaps:
    """Return an STPM's ``LayerMaps`` in the form that is faster on CPU."""
    return FrozenLayerMaps(stpm.model_t, stpm.model_s, norm_eps=NORM_EPS)


def network_for_export(stpm: STPM, *, view: View) -> AnomalyMap:
    """Return an STPM's anomaly map as the network that other runtimes compute, for images of this view."""
    folded = fold_batch_norm(stpm, operators=portable_operators(view.size))
    return AnomalyMap(PortableLayerMaps(folded), view=view)


def fold_batch_norm(stpm: STPM, *, operators: Operators = DEFAULT_OPERATORS) -> STPM:
    """Return a copy of an STPM in evaluation form: every batch norm folded into the convolution before it."""
    folded = STPM(teacher_norm=ChannelBias, student_norm=ChannelBias, operators=operators)
    _load_folded(folded, stpm)
    folded.set_train(False)
    return folded


def _load_folded(folded: STPM, stpm: STPM) -> None:
    """Fill the form without batch norm."""
    arrays, folded_arrays = named_arrays(stpm), {}
    for name, _ in folded.parameters_and_names():
        if not name.endswith(".bias"):
            continue
        norm = name.removesuffix(".bias")
        # "...bn1" follows "...conv1"; in a projection, ".1" follows ".0"
        conv = norm.removesuffix("1") + "0" if "down_sample_layer" in norm else norm.replace("bn", "conv")
        folded_arrays[f"{conv}.weight"], bias = fold(arrays, conv, norm, eps=BN_EPS)
        folded_arrays[name] = bias.reshape(1, -1, 1, 1)
    load_checked(named_parameters(folded), folded_arrays, source="folded network")


class StpmNetwork:
    """An STPM as one network: a function from images, float32 (N, 3, H, W), to anomaly maps, float32 (N, 1, H, W).

    It computes with the weights that the STPM had when this was made or ``refresh_weights`` was called.
    """

    def __init__(self, stpm: STPM, *, view: View):
        self._stpm = stpm
        self._folded = None if _is_fast_on_cpu() else fold_batch_norm(stpm)
        self._layer_maps = LayerMaps(self._folded) if self._folded is not None else fast_layer_maps(stpm)
        self._network = AnomalyMap(self._layer_maps, view=view)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._network.set_train(False)
        return self._network(Tensor(images)).asnumpy()

    def refresh_weights(self) -> None:
        """Take over the weights that the STPM has now."""
        if self._folded is not None:
            _load_folded(self._folded, self._stpm)
        else:
            self._layer_maps.freeze(self._stpm.model_t, self._stpm.model_s)


class EvaluationLoss:
    """The loss of a student in evaluation: ``src.loss.StudentLoss`` around its form with frozen statistics.

    It computes with the weights that the STPM had when this was made or ``refresh_weights`` was called.
    """

    def __init__(self, stpm: STPM):
        self._stpm = stpm
        self._copy = None if _is_fast_on_cpu() else fold_batch_norm(stpm)
        self._student = FrozenFeatures(stpm.model_s) if self._copy is None else self._copy.model_s
        self._loss = StudentLoss(self._student)

    def __call__(self, images: np.ndarray, *columns: np.ndarray) -> float:
        """Return the sum over images, float32 (N, 3, H, W).

        Args:
            columns: the teacher's normalised features, (N, C, h, w), and what else ``StudentLoss`` takes.
        """
        self._loss.set_train(False)
        return float(self._loss(Tensor(images), *map(Tensor, columns)).asnumpy())

    def refresh_weights(self) -> None:
        """Take over the weights that the STPM has now."""
        if self._copy is not None:
            _load_folded(self._copy, self._stpm)
        else:
            self._student.freeze(self._stpm.model_s)
