"""Emulate a device whose convolutions take float16 and give float32, as Ascend's do, and compare maps and scores.

    python -m benchmarks.float16 --ckpt_path CKPT --data_url DIR --category NAME [--images 24]

The exported network, batch norm folded and sums over channels and resizing written as convolutions, computed in PyTorch
with the inputs and weights of every convolution rounded to float16, on every n-th test image, so that there are at most
--images. "flushed" also rounds what is below float16's smallest normal number, 6.1e-5, to 0: no document says whether a
device does. Reported are differences from float32: of the maps, relative to the largest value of all; of the scores,
each relative to itself; and those of the image of the self-test, which the tolerance of ``stpm_infer --selftest`` is
for.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from src.data.images import formula_image, load_image, to_network_input
from src.data.samples import list_test
from src.model.model_file import inspect_model
from src.utils import run_entry_point

SMALLEST_NORMAL = 2.0**-14


class Float32:
    """Convolution as the network defines it."""

    def rounded(self, x):
        return x

    def conv(self, x, weight, bias=None, **options):
        return F.conv2d(self.rounded(x), self.rounded(weight), bias, **options)


class Float16In(Float32):
    """Float16 in, float32 out."""

    def __init__(self, *, flush=False):
        self.flush = flush

    def rounded(self, x):
        x = x.half().float()
        return torch.where(x.abs() < SMALLEST_NORMAL, 0.0, x) if self.flush else x


class Network:
    """Images, float32 (N, 3, S, S), to anomaly maps, float32 (N, S, S), with convolutions of an arithmetic."""

    def __init__(self, arrays, *, image_size, norm_eps):
        self.arrays, self.image_size, self.norm_eps = arrays, image_size, norm_eps

    def __call__(self, images, arithmetic):
        from src.stpm import bilinear_matrix

        product = 1.0
        conv = arithmetic.conv
        features = [self.trunk(f"{name}.", images, conv) for name in ("model_t", "model_s")]
        for teacher, student in zip(*features, strict=True):
            difference = self.normalised(teacher, conv) - self.normalised(student, conv)
            level = 0.5 * self.channel_sum(difference * difference, conv)  # (N, 1, h, h)
            side = level.shape[-1]
            matrix = torch.from_numpy(bilinear_matrix(self.image_size, side))[:, :, None, None]
            rows = conv(level.reshape(-1, side, side, 1), matrix)  # (N, S, h, 1)
            columns = conv(rows.permute(0, 2, 1, 3), matrix)  # (N, S, S, 1): columns, then rows
            product = columns.permute(0, 3, 2, 1)[:, 0] * product
        return product.numpy()

    def channel_sum(self, x, conv):
        return conv(x, torch.ones(1, x.shape[1], 1, 1))

    def normalised(self, x, conv):
        return x / torch.sqrt(self.channel_sum(x * x, conv) + self.norm_eps)

    def folded(self, conv, norm):
        from src.cpu.trunk import fold
        from src.resnet import BN_EPS

        return map(torch.from_numpy, fold(self.arrays, conv, norm, eps=BN_EPS))

    def trunk(self, prefix, x, conv):
        def unit(x, first, second, **options):
            return conv(x, *self.folded(prefix + first, prefix + second), **options)

        x = F.max_pool2d(F.relu(unit(x, "conv1", "bn1", stride=2, padding=3)), 3, 2, 1)
        for layer in (1, 2, 3):
            for block in (0, 1):
                name = f"layer{layer}.{block}."
                stride = 2 if layer > 1 and block == 0 else 1
                y = F.relu(unit(x, f"{name}conv1", f"{name}bn1", stride=stride, padding=1))
                y = unit(y, f"{name}conv2", f"{name}bn2", padding=1)
                if stride == 2:
                    x = unit(x, f"{name}down_sample_layer.0", f"{name}down_sample_layer.1", stride=2)
                x = F.relu(y + x)
            yield x


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--images", type=int, default=24)
    return parser.parse_args(argv)


def main(args):
    model = inspect_model(args.ckpt_path, category=args.category)
    samples = list_test(args.data_url, args.category)
    samples = samples[:: -(-len(samples) // args.images)]
    from src.device import set_up_device

    set_up_device("CPU")
    from src.checkpoint import load_stpm, named_arrays
    from src.loss import NORM_EPS
    from src.stpm import STPM

    stpm = load_stpm(STPM(), model.path)
    network = Network(named_arrays(stpm), image_size=model.view.size.height, norm_eps=NORM_EPS)
    pictures = [load_image(sample.path, model.view) for sample in samples] + [formula_image(model.view.size)]
    inputs = torch.from_numpy(to_network_input(np.stack(pictures)))
    with torch.no_grad():
        exact, *others = (
            np.concatenate([network(one[None], arithmetic) for one in inputs])
            for arithmetic in (Float32(), Float16In(), Float16In(flush=True))
        )
    labels = np.array([sample.is_defective for sample in samples])
    print(f"images: {len(labels)}")
    for name, maps in zip(("float16 in", "float16 in, flushed"), others, strict=True):
        print(f"{name}:")
        report(exact, maps, labels)
    return 0


def report(exact, found, labels):
    """Print the differences of maps, the last of which is that of the self-test."""
    difference = np.abs(found - exact)
    scores, scores_found = exact.max((1, 2)), found.max((1, 2))
    relative = np.abs(scores_found - scores) / scores
    print(f"maps: {difference[:-1].max() / exact[:-1].max():.1e}")
    print(f"scores, at most: {relative[:-1].max():.1e}")
    print(f"scores, median: {np.median(relative[:-1]):.1e}")
    if 0 < labels.sum() < len(labels):
        aurocs = [roc_auc_score(labels, one[:-1]) for one in (scores, scores_found)]
        print(f"image AUROC: {aurocs[0]:.6f}, {aurocs[1]:.6f}")
    print(f"map of the self-test: {difference[-1].max() / scores[-1]:.1e}")
    print(f"score of the self-test: {relative[-1]:.1e}")


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
