"""Evaluate a checkpoint on the test images of one category: pixel- and image-level AUROC, PRO."""

import sys
import time
from argparse import Namespace
from pathlib import Path

from src import modelarts
from src.config import DEFAULT_IMAGE_SIZE, build_parser, merge_twins
from src.dataset import decode_images, decode_masks, list_test
from src.sidecar import read_sidecar
from src.utils import LOGGER, check_checkpoint_file, make_output_folder, run_entry_point, set_up_device, write_json

FLAG_NAMES = (
    "eval_url", "data_url", "category", "ckpt_path", "ckpt_url", "out_dir", "train_url", "num_class", "image_size",
    "eval_batch_size", "mask_rule", "save_sample", "save_sample_path", "device_target", "device_id", "modelarts",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line; flags that the specification names twice are made one."""
    parser = build_parser(__doc__, FLAG_NAMES)
    args = parser.parse_args(argv)
    merge_twins(parser, args, "ckpt_path", "ckpt_url")
    merge_twins(parser, args, "eval_url", "data_url")
    args.out_dir = args.out_dir or args.train_url
    return args


@modelarts.staged(inputs=("eval_url", "ckpt_path"), output="out_dir")
def main(args: Namespace) -> int:
    """Evaluate; return the exit status."""
    # 1. What goes in, checked before the slow imports
    ckpt_path = Path(args.ckpt_path)
    check_checkpoint_file(ckpt_path)
    sidecar = read_sidecar(ckpt_path, category=args.category)
    image_size = choose_image_size(args.image_size, sidecar)
    samples = list_test(Path(args.eval_url), args.category)
    folder = make_output_folder(Path(args.out_dir) / args.category)

    # 2. Images and network
    clock = Clock()
    images = decode_images(samples, image_size=image_size)
    masks = decode_masks(samples, image_size=image_size)
    clock.lap("decode_seconds")
    set_up_device(args.device_target, args.device_id)
    from src.evaluate import image_records, predict_maps, score_maps, three_lines
    from src.stpm import fold_batch_norm, load_stpm, map_function

    anomaly_map = map_function(fold_batch_norm(load_stpm(ckpt_path, num_class=args.num_class)), image_size=image_size)
    clock.lap("load_seconds")

    # 3. Maps and metrics
    maps = predict_maps(anomaly_map, images, batch_size=args.eval_batch_size)
    clock.lap("inference_seconds")
    metrics = score_maps(maps, masks, samples, mask_rule=args.mask_rule)
    clock.lap("metrics_seconds")

    # 4. Results
    about = {"category": args.category, "model": ckpt_path.name, "image_size": image_size,
             "config_hash": sidecar["config_hash"] if sidecar else None}  # fmt: skip
    write_json(folder / "results.json", about | metrics | {"scores": image_records(samples, maps)})
    write_json(folder / "timing.json", clock.laps | {"test_images": len(samples)})
    if args.save_sample:
        from src.pictures import save_sample_sheet

        picture = make_output_folder(Path(args.save_sample_path or folder)) / "samples.png"
        save_sample_sheet(picture, samples, images, masks, maps)
        LOGGER.info("picture: %s", picture)
    LOGGER.info("PRO (FPR up to 0.3): %s; more in %s", metrics["pro"], folder / "results.json")
    print(three_lines(args.category, metrics))
    return 0


def choose_image_size(flag: int | None, sidecar: dict | None) -> int:
    """Return the flag's size, else the checkpoint's own, else the default; warn where flag and checkpoint differ."""
    trained = sidecar["image_size"] if sidecar else None
    if flag and trained and flag != trained:
        LOGGER.warning("warning: --image_size %d, but the checkpoint was trained at %d", flag, trained)
    return flag or trained or DEFAULT_IMAGE_SIZE


class Clock:
    """Seconds of each stage, by name."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
