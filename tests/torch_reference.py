"""An independent implementation in PyTorch, numpy and OpenCV of what the project computes with MindSpore."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)  # its threads wait by spinning: beside other work, small networks take ten times as long

# the trunk's kinds of convolutions, and one of odd numbers, for ``pytest.mark.parametrize``
CONVOLUTIONS = (
    ("count", "channels", "filters", "side", "kernel", "stride"),
    [(4, 3, 64, 32, 7, 2), (5, 64, 64, 16, 3, 1), (1, 64, 128, 16, 3, 2), (3, 64, 128, 16, 1, 2), (2, 5, 7, 6, 3, 1)],
)


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet18(nn.Module):
    """torchvision's resnet18 by name and function; ``whole`` adds layer4 and fc."""

    def __init__(self, whole=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        if whole:
            self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
            self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        f1 = self.layer1(x)
        f2 = self.layer2(f1)
        return f1, f2, self.layer3(f2)


def random_resnet(seed, whole=False):
    """A network with random weights and random, plausible batch-norm statistics."""
    torch.manual_seed(seed)
    net = ResNet18(whole)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


# MindSpore's names of batch norm's entries: PyTorch's
NORM_ENTRIES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def torch_name(name):
    """The name here of a parameter in a MindSpore checkpoint's ``model_t`` or ``model_s``."""
    module, _, entry = name.replace("down_sample_layer", "downsample").rpartition(".")
    return f"{module}.{NORM_ENTRIES.get(entry, entry)}"


def resnet_of(arrays):
    """A network in evaluation mode with weights by MindSpore's names."""
    net = ResNet18()
    state = {torch_name(name): torch.from_numpy(array.copy()) for name, array in arrays.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return net.eval()


def network_input(images):
    """uint8 (N, S, S, 3) as torchvision's transforms make it: float32 (N, 3, S, S)."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def train(teacher, student, images, *, orders, batch_size, rates, momentum, weight_decay):
    """Train a student as the paper does, on images in the order of each epoch; return each epoch's batches' losses.

    SGD with Nesterov momentum; weight decay leaves out batch norm, as in MindSpore.
    """
    student.train()
    groups = [
        {"params": [p for p in student.parameters() if p.ndim == 4], "weight_decay": weight_decay},
        {"params": [p for p in student.parameters() if p.ndim == 1]},
    ]
    optimiser = torch.optim.SGD(groups, rates[0], momentum=momentum, nesterov=momentum > 0)
    rates, losses = iter(rates), []
    for order in orders:
        losses.append([])
        for start in range(0, len(order), batch_size):
            batch = images[order[start : start + batch_size]]
            rate = next(rates)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
            with torch.no_grad():
                expected = teacher(batch)
            value = loss(expected, student(batch))
            value.backward()
            optimiser.step()
            losses[-1].append(value.item())
    return losses


def loss(teacher_features, student_features):
    """The paper's loss, summed over the batch."""
    total = 0.0
    for t, s in zip(teacher_features, student_features, strict=True):
        total = total + 0.5 / (t.shape[2] * t.shape[3]) * ((F.normalize(t) - F.normalize(s)) ** 2).sum()
    return total


def anomaly_maps(teacher_features, student_features, size):
    """The design's map with numpy and OpenCV, from feature arrays (N, C, h, w): float64 (N, size, size)."""
    maps = []
    for i in range(len(teacher_features[0])):
        product = np.ones((size, size))
        for t, s in zip(teacher_features, student_features, strict=True):
            t_hat = t[i].astype(np.float64) / np.linalg.norm(t[i].astype(np.float64), axis=0)
            s_hat = s[i].astype(np.float64) / np.linalg.norm(s[i].astype(np.float64), axis=0)
            distance = 0.5 * ((t_hat - s_hat) ** 2).sum(axis=0)
            product *= cv2.resize(distance, (size, size), interpolation=cv2.INTER_LINEAR)
        maps.append(product)
    return np.stack(maps)
