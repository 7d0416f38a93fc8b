"""Evaluate a checkpoint or exported model on the test images of one category: pixel- and image-level AUROC, PRO."""

import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src import modelarts
from src.config import build_parser, resolve_aliases
from src.data.arrays import decode_images, decode_masks
from src.data.samples import list_test
from src.detector import open_detector
from src.evaluation.results import About, Timing, format_result, result_scores, results_content, summary
from src.files import make_output_folder, write_json
from src.model.model_file import choose_rule, inspect_model
from src.model.record import read_record
from src.utils import LOGGER, run_entry_point

FLAG_NAMES = (
    "eval_url", "data_url", "category", "ckpt_path", "ckpt_url", "out_dir", "train_url", "num_class", "image_size",
    "eval_batch_size", "mask_rule", "threshold", "review", "report", "save_sample", "save_sample_path",
    "device_target", "device_id", "modelarts",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line; flags that the specification names twice are made one."""
    parser = build_parser(__doc__, FLAG_NAMES)
    args = parser.parse_args(argv)
    resolve_aliases(parser, args, "ckpt_path", "ckpt_url")
    resolve_aliases(parser, args, "eval_url", "data_url")
    args.out_dir = args.out_dir or args.train_url
    return args


@modelarts.staged(inputs=("eval_url", "ckpt_path"), output="out_dir", more_outputs=("save_sample_path", "report"))
def main(args: Namespace) -> int:
    """Evaluate; return the exit status."""
    # 1. Inputs, checked before the slow imports
    model = inspect_model(
        Path(args.ckpt_path), category=args.category, image_size=args.image_size, batch_size=args.eval_batch_size
    )
    rule = choose_rule(model, threshold=args.threshold, review=args.review)
    samples = list_test(Path(args.eval_url), args.category)
    folder = make_output_folder(Path(args.out_dir) / args.category)
    sample_folder = make_output_folder(Path(args.save_sample_path or folder)) if args.save_sample else None
    report_folder = make_output_folder(Path(args.report)) if args.report else None

    # 2. Network and, while it loads, images
    clock = Clock()
    with ThreadPoolExecutor(2) as pool:
        images = pool.submit(decode_images, samples, view=model.view)
        masks = pool.submit(decode_masks, samples, view=model.view)
        detector = open_detector(
            model, rule, num_class=args.num_class, device_target=args.device_target, device_id=args.device_id
        )
        images, masks = images.result(), masks.result()
    loading = clock.lap()

    # 3. Maps and metrics
    maps = detector.anomaly_maps(images)
    inference = clock.lap()
    about: About = {"category": args.category, "model": model.path.name, "image_size": model.view.size.to_json(),
             "config_hash": model.config_hash}  # fmt: skip
    results = results_content(samples, maps, masks, about=about, rule=rule, mask_rule=args.mask_rule,
                              counted=model.view.counted)  # fmt: skip
    measuring = clock.lap()

    # 4. Results
    write_json(folder / "results.json", results)
    timing: Timing = {"load_and_decode_seconds": loading, "inference_seconds": inference, "metrics_seconds": measuring,
                      "test_images": len(samples)}  # fmt: skip
    write_json(folder / "timing.json", timing)
    if sample_folder:
        from src.report.pictures import save_sample_sheet

        picture = sample_folder / "samples.png"
        save_sample_sheet(
            picture, samples, images, masks, maps, scores=result_scores(results), threshold=rule.threshold
        )
        LOGGER.info("picture: %s", picture)
    if report_folder:
        from src.report.page import write_report

        record = read_record(model.path, model.config_hash)
        report = write_report(
            report_folder, results, samples, images, masks, maps, counted=model.view.counted, record=record
        )
        LOGGER.info("report: %s", report)
    LOGGER.info("%s\nmore in %s", summary(results), folder / "results.json")
    print(format_result(args.category, results))
    return 0


class Clock:
    """Seconds of each stage."""

    def __init__(self):
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return what the stage that ends now took."""
        before, self._last = self._last, time.perf_counter()
        return round(self._last - before, 3)


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
