"""STPM as its PyTorch implementations do it, to be measured beside ours.

Every epoch decodes every image and computes the teacher's features again; evaluation goes image by image, with OpenCV
and lists of pixels.

    python -m benchmarks.peer train --data_url DIR --category NAME --epochs 3 [--layout channels_last] [--cached]
                                    [--bfloat16]
    python -m benchmarks.peer evaluate --data_url DIR --category NAME

Weights are random: only times count here. ``--cached`` gives the training decoded images and the teacher's features,
as ours has them; ``--bfloat16`` trains under autocast to it. The last line of the output is JSON: seconds of every
epoch.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from src.utils import core_count
from tests.torch_reference import loss, random_resnet

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
LR, MOMENTUM, WEIGHT_DECAY = 0.4, 0.9, 1e-4
PRO_THRESHOLDS, PRO_FPR = 200, 0.3
DECODING_PROCESSES = 2


def use_all_cores():
    """Give PyTorch a thread for each core, as it has by itself; the tests' reference, imported above, leaves it one."""
    torch.set_num_threads(core_count())


class Pictures(Dataset):
    """Pictures that are decoded whenever they are asked for."""

    def __init__(self, paths, size):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = Image.open(self.paths[i]).convert("RGB").resize((self.size, self.size), Image.Resampling.LANCZOS)
        return ((torch.from_numpy(np.array(image)).float() / 255 - MEAN) / STD).permute(2, 0, 1)


class Training:
    """Teacher, student and optimiser in a memory layout, and a training step; ``bfloat16``: under autocast to it."""

    def __init__(self, layout, *, bfloat16=False):
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
        self.layout = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.teacher, self.student = (random_resnet(seed).to(memory_format=self.layout) for seed in (0, 1))
        self.student.train()
        options = {"weight_decay": WEIGHT_DECAY, "nesterov": True}
        self.optimiser = torch.optim.SGD(self.student.parameters(), LR, MOMENTUM, **options)

    def features(self, images):
        """The teacher's features."""
        with torch.no_grad(), self.autocast:
            return [level.float() for level in self.teacher(images.contiguous(memory_format=self.layout))]

    def step(self, images, features=None):
        """Train on a batch; without ``features`` the teacher computes them now. Return the loss."""
        images = images.contiguous(memory_format=self.layout)
        teacher = features or self.features(images)
        with self.autocast:
            levels = self.student(images)
        value = loss(teacher, [level.float() for level in levels])
        self.optimiser.zero_grad()
        value.backward()
        self.optimiser.step()
        return value.item()


def train(args):
    training = Training(args.layout, bfloat16=args.bfloat16)
    paths = sorted((Path(args.data_url) / args.category / "train/good").iterdir())
    data = Pictures(paths, args.image_size)
    processes = DECODING_PROCESSES
    if args.cached:
        images = torch.stack(list(DataLoader(data, batch_size=None, num_workers=processes)))
        features = [training.features(batch) for batch in images.split(8)]
        data, processes = TensorDataset(images, *(torch.cat(level) for level in zip(*features, strict=True))), 0
    loader = DataLoader(data, args.batch_size, shuffle=True, num_workers=processes)
    seconds = []
    for _ in range(args.epochs):
        started = time.perf_counter()
        for batch in loader:
            images, *features = batch if args.cached else [batch]
            training.step(images, features)
        seconds.append(time.perf_counter() - started)
    return seconds


def pro(maps, masks):
    """Per-region overlap by a sweep over thresholds, as in the code that goes around for it."""
    rates, overlaps = [], []
    for threshold in np.linspace(maps.min(), maps.max(), PRO_THRESHOLDS):
        binary = maps >= threshold
        of_regions = []
        for one, mask in zip(binary, masks, strict=True):
            count, labels = cv2.connectedComponents(mask.astype(np.uint8))
            of_regions += [one[labels == i].mean() for i in range(1, count)]
        overlaps.append(np.mean(of_regions))
        rates.append((binary & ~masks).sum() / (~masks).sum())
    order = np.argsort(rates)
    rates, overlaps = np.array(rates)[order], np.array(overlaps)[order]
    kept = rates <= PRO_FPR
    return np.trapz(overlaps[kept], rates[kept]) / PRO_FPR


def evaluate(args):
    started = time.perf_counter()
    teacher, student = (random_resnet(seed).to(memory_format=torch.channels_last) for seed in (0, 1))
    size, root = args.image_size, Path(args.data_url) / args.category
    pixel_labels, pixel_scores, labels, scores, maps, masks = [], [], [], [], [], []
    for path in sorted((root / "test").glob("*/*")):
        image = Pictures([path], size)[0][None].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            pairs = zip(teacher(image), student(image), strict=True)
            product = np.ones((size, size), np.float32)
            for t, s in pairs:
                distance = 0.5 * ((functional.normalize(t) - functional.normalize(s)) ** 2).sum(1)[0].numpy()
                product *= cv2.resize(distance, (size, size), interpolation=cv2.INTER_LINEAR)
        mask_path = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        mask = np.zeros((size, size), bool)
        if mask_path.exists():
            grey = Image.open(mask_path).convert("L").resize((size, size), Image.Resampling.BILINEAR)
            mask = np.array(grey) >= 128
        pixel_labels.extend(mask.ravel().astype(int))
        pixel_scores.extend(product.ravel())
        labels.append(path.parent.name != "good")
        scores.append(product.max())
        maps.append(product)
        masks.append(mask)
    roc_auc_score(pixel_labels, pixel_scores)
    roc_auc_score(labels, scores)
    pro(np.stack(maps), np.stack(masks))
    return [time.perf_counter() - started]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("work", choices=("train", "evaluate"))
    parser.add_argument("--data_url", required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--layout", choices=("channels_last", "default"), default="channels_last")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    return parser.parse_args(argv)


def main(args):
    use_all_cores()
    print(json.dumps(train(args) if args.work == "train" else evaluate(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main(parse_args()))
