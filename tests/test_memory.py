"""The memory that a training takes is told before it begins."""

import pytest

from src.data.view import ImageSize
from src.training import memory
from src.utils import InputError, core_count

USUAL = {"batch_size": 32, "images": 200, "cache_features": True, "budget_bytes": 2_000_000_000}
SIDE = ImageSize(256, 256)
# Peaks in MB, measured on two cores (docs/performance.md): size, batch size, images or pieces; BFLOAT16: in that.
MEASURED = [
    ((64, 64), 4, 4, 764),
    ((256, 256), 8, 8, 1146),
    ((256, 256), 32, 32, 2210),
    ((256, 256), 8, 128, 1448),
    ((256, 256), 32, 96, 2479),
    ((512, 512), 4, 8, 1592),
    ((512, 512), 8, 16, 2407),
    ((1024, 1024), 2, 3, 2527),
]
BFLOAT16 = [
    ((64, 64), 4, 4, 807),
    ((256, 256), 32, 32, 1711),
    ((256, 256), 32, 96, 1968),
    ((512, 512), 8, 16, 1886),
    ((1024, 1024), 2, 3, 2154),
]


@pytest.mark.parametrize(
    ("bfloat16", "size", "batch_size", "images", "peak"),
    [(False, *row) for row in MEASURED] + [(True, *row) for row in BFLOAT16],
)
def test_measured(monkeypatch, bfloat16, size, batch_size, images, peak):
    """Within 15 % of what was measured."""
    monkeypatch.setattr(memory, "core_count", lambda: 2)
    about = USUAL | {"batch_size": batch_size, "images": images, "bfloat16": bfloat16}
    assert memory.Workload(size=ImageSize(*size), **about).peak_bytes() / 1e6 == pytest.approx(peak, rel=0.15)


def peak(**changes):
    """The estimate of the usual training, some of it changed."""
    return memory.Workload(size=SIDE, **USUAL | changes).peak_bytes()


def test_parts():
    """Caches beyond the budget are in files; test images are kept as a whole."""
    pixels = 200 * 256 * 256
    whole = peak()
    assert whole - peak(cache_features=False) == 28 * pixels
    assert whole - peak(budget_bytes=28 * pixels - 1) == 28 * pixels
    assert whole - peak(budget_bytes=0) == 31 * pixels
    assert peak(test_pixels=1000) - whole == 12_000
    assert peak(batch_size=400) == peak(batch_size=200)
    assert core_count() >= 1


def test_refused(monkeypatch):
    """With sizes that fit, where there are such."""
    large = ImageSize(1024, 1024)

    def refusal(free, size=large, **changes):
        monkeypatch.setattr(memory, "free_memory", lambda: free)
        with pytest.raises(InputError) as error:
            memory.check_memory(memory.Workload(size=size, **USUAL | changes))
        return str(error.value)

    monkeypatch.setattr(memory, "core_count", lambda: 2)
    told = refusal(6_000_000_000)
    assert told.startswith(
        "training on 1024x1024 pixels in batches of 32 needs about 23.5 GB of memory, and 6.0 GB are"
    )
    assert "train_tile 256 needs 2.8 GB; batch_size 4 needs 4.4 GB" in told
    assert "--train_tile" not in refusal(1_500_000_000, SIDE)
    assert refusal(500_000_000, SIDE).endswith("a smaller image_size needs less")


def test_enough(monkeypatch):
    """Nothing is said where it fits, or where nothing is known."""
    for free in (peak(), None):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        memory.check_memory(memory.Workload(size=SIDE, **USUAL))
