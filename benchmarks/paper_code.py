"""Train and evaluate as the paper's own code does, accuracy included: gdwang08/STFPM, read and written anew in PyTorch.

    python -m benchmarks.paper_code --data_url DIR --category NAME --pth_path resnet18-f37072fd.pth [--epochs 200]

What differs from the model zoo and from this project: the loss is the mean over batch and positions of the squared
difference summed over channels, without 0.5, so that at a batch of 32 steps are a sixteenth as large; plain momentum; a
fifth of the good images is held out, and the epoch with the least mean map on them is kept; images are resized
bilinearly; maps are multiplied at a quarter of the size, then resized; a mask is what is above 0. --loss sum,
--nesterov, --hold_out 0, --batch_size, --lr_schedule and --mask_rule half take the differences away one by one, so that
this project's two recipes can be trained here as well. Metrics are this project's, on the test images, for information
after every tenth epoch. With --device cuda PyTorch computes on a GPU, in whole float32.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.peer import LR, MEAN, MOMENTUM, STD, WEIGHT_DECAY, use_all_cores
from src.data.images import MASK_RULES, binary_mask
from src.data.samples import list_test, list_train
from src.evaluation.decision import image_scores
from src.evaluation.metrics import PixelRanking, auroc
from tests import torch_reference as reference


def new_student(seed, device="cpu"):
    """Return a student as torchvision initialises a ResNet."""
    torch.manual_seed(seed)
    student = reference.ResNet18().to(memory_format=torch.channels_last)
    for module in student.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return student.to(device)


def trained_teacher(path, device="cpu"):
    teacher = reference.ResNet18().to(memory_format=torch.channels_last)
    state = torch.load(path, weights_only=True)
    teacher.load_state_dict({name: value for name, value in state.items() if name in teacher.state_dict()})
    return teacher.eval().to(device)


def read(paths, size, mode="RGB"):
    """Return pictures or masks, resized bilinearly: uint8 (N, S, S[, 3])."""
    resized = [Image.open(path).convert(mode).resize((size, size), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(one) for one in resized])


def network_input(images, device="cpu"):
    scaled = torch.from_numpy(images).to(device).float() / 255  # on the device: the processor is slower at it
    return ((scaled - MEAN.to(device)) / STD.to(device)).permute(0, 3, 1, 2)


def learning_rate(schedule, step, steps):
    """Return the rate of a step: constant, or a rise over a twentieth of the steps, then half a cosine."""
    rising = math.ceil(steps / 20)
    if schedule == "constant":
        return LR
    if step < rising:
        return LR * (step + 1) / rising
    return LR * (1 + math.cos(math.pi * (step - rising + 1) / (steps - rising + 1))) / 2


def distances(teacher, student):
    """Return the squared difference of every scale, summed over channels: (N, h, w) each."""
    pairs = zip(teacher, student, strict=True)
    return [((functional.normalize(t) - functional.normalize(s)) ** 2).sum(1) for t, s in pairs]


def paper_loss(teacher, student):
    return sum(one.mean() for one in distances(teacher, student))


@torch.no_grad()
def held_out_loss(loss, features, student, images, rows):
    """Return the loss of ``images[rows]`` per image, by the network in evaluation."""
    student.eval()
    device = next(student.parameters()).device
    values = [
        loss([level[row : row + 1] for level in features], student(network_input(images[row : row + 1], device))).item()
        for row in rows
    ]
    student.train()
    return np.mean(values)


@torch.no_grad()
def anomaly_maps(teacher, student, images):
    """Return the product of the scales' distances, (N, S/4, S/4)."""
    maps, size = [], images.shape[1] // 4
    device = next(student.parameters()).device
    student.eval()
    for batch in torch.split(network_input(images, device), 8):
        product = 1
        for one in distances(teacher(batch), student(batch)):
            product = product * functional.interpolate(one[:, None], size, mode="bilinear", align_corners=False)
        maps.append(product[:, 0])
    student.train()
    return torch.cat(maps).cpu()


def metrics(maps, samples, size, mask_rule):
    """Return pixel AUROC, image AUROC and PRO."""
    maps = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()
    labels = np.array([sample.is_defective for sample in samples])
    masks = np.zeros((len(samples), size, size), np.uint8)
    masks[labels] = read([sample.mask_path for sample in samples if sample.is_defective], size, "L")
    truth, ranking = binary_mask(masks, mask_rule), PixelRanking(maps)
    return ranking.auroc(truth), auroc(image_scores(maps), labels), ranking.per_region_overlap(truth)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument(
        "--pth_path", type=Path, required=True, help="the teacher: torchvision's resnet18, or its trunk"
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument(
        "--loss", choices=("mean", "sum"), default="mean", help="sum: the model zoo's and this project's"
    )
    parser.add_argument("--nesterov", action="store_true")
    parser.add_argument("--lr_schedule", choices=("constant", "cosine"), default="constant")
    parser.add_argument("--hold_out", type=float, default=0.2)
    parser.add_argument("--mask_rule", choices=tuple(MASK_RULES), default="dilate")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args(argv)


def main(args):
    use_all_cores()
    torch.backends.cudnn.allow_tf32 = False
    order = np.random.default_rng(args.seed)
    paths = [sample.path for sample in list_train(args.data_url, args.category)]
    test = list_test(args.data_url, args.category)
    images = read(paths, args.image_size)
    test_images = read([sample.path for sample in test], args.image_size)
    held = order.permutation(len(images))[: round(args.hold_out * len(images))]
    train = np.setdiff1d(np.arange(len(images)), held)

    teacher, student = trained_teacher(args.pth_path, args.device), new_student(args.seed, args.device)
    with torch.no_grad():  # once, which changes nothing but the time
        features = [teacher(batch) for batch in network_input(images, args.device).split(8)]
    features = [torch.cat(level) for level in zip(*features, strict=True)]
    optimiser = torch.optim.SGD(student.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=args.nesterov)
    loss = paper_loss if args.loss == "mean" else reference.loss
    least, kept, state = np.inf, 0, {}
    step, steps = 0, args.epochs * math.ceil(len(train) / args.batch_size)
    print(
        "| epoch | loss per image | held out | mean map, held out | pixel AUROC | image AUROC | PRO |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for epoch in range(1, args.epochs + 1):
        student.train()
        losses = []
        for rows in np.split(order.permutation(train), range(args.batch_size, len(train), args.batch_size)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(args.lr_schedule, step, steps)
            value = loss([level[rows] for level in features], student(network_input(images[rows], args.device)))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            step += 1
            losses.append(value.item() / (len(rows) if args.loss == "sum" else 1))
        mean = float(anomaly_maps(teacher, student, images[held]).mean()) if len(held) else np.nan
        if mean < least:
            least, kept = mean, epoch
            state = {name: value.clone() for name, value in student.state_dict().items()}
        if epoch % 10 == 0 or epoch == args.epochs:
            found = metrics(anomaly_maps(teacher, student, test_images), test, args.image_size, args.mask_rule)
            unseen = held_out_loss(loss, features, student, images, held) if len(held) else np.nan
            row = (epoch, f"{np.mean(losses):.4f}", f"{unseen:.4f}", f"{mean:.3e}", *(f"{x:.4f}" for x in found))
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    if kept:
        student.load_state_dict(state)
        found = metrics(anomaly_maps(teacher, student, test_images), test, args.image_size, args.mask_rule)
        print(f"| {kept}, kept by the held-out images | | | {least:.3e} | {' | '.join(f'{x:.4f}' for x in found)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(parse_args()))
