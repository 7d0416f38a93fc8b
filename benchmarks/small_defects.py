"""Train, calibrate and evaluate at several image sizes: what is gained where the defects are a few pixels.

    python -m benchmarks.small_defects --pre_ckpt_path resnet18.ckpt --work_folder FOLDER
        [--settings 256 208x320 800x1280] [--steps 1500] [--seed 1] [--device_target auto]
        [--data_url DATASET_PATH --category CATEGORY [--good_images FOLDER]] [--ignore_mask FILE]
        [--readme docs/small_defects.md docs/zh/small_defects.md] [--figure docs/small_defects.png]
        [--borders TILE]

A setting is an image size or SIZE/TILE, as of --image_size and --train_tile of train.py; without a tile the images are
trained on as the project does by itself, large ones in pieces. All get as many optimiser steps, of the recipe
"recommended". Without --data_url it is done on the demo's web; another seed's good images then set the threshold. In
--work_folder stand the models and small_defects.json; run again, settings that stand there already are not done again.
Memory is the peak of what is the training's own (RssAnon), files that are mapped into it apart. The figure shows an
image of every defect type, of median score at the last setting: the place of the defect, its mask, and the anomaly maps
of the first and the last setting. --borders compares the maps of good test images near the borders that pieces of a
side have with those elsewhere, whether a setting was trained on such pieces or not: do borders leave a trace?
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import processes
from src.data.pieces import Pieces
from src.data.samples import list_test
from src.files import atomic_path, file_sha256, read_json, write_json
from src.report.pictures import colour_map
from src.report.table import replace_marked
from src.utils import InputError, run_entry_point

TABLE = "small defects"
PANEL = (256, 160)  # width and height in the figure; of the image's details half of that
CAPTIONS = ("image size", "trained on", "image AUROC", "pixel AUROC", "PRO", "recall", "false positives",
            "memory")  # fmt: skip


def program(*words):
    """Run one of the project's programs; return the peak of its own memory, MB."""
    _, memory, _ = processes.run([sys.executable, *words], own_memory=True)
    return memory


def draw_data(folder):
    """Draw the web, and good images of another seed; return data set and folder of these."""
    program("-m", "src.demo_data", "--product", "web", "--out_dir", folder / "data")
    program("-m", "src.demo_data", "--product", "web", "--out_dir", folder / "more", "--seed", 1)
    return folder / "data", folder / "more/web/train/good"


def run_setting(args, setting):
    """Train, calibrate, evaluate; return what the table and the page need."""
    size, _, tile = setting.partition("/")
    out = args.work_folder / setting.replace("/", "-")
    folder = out / args.category
    where = ("--category", args.category, "--device_target", args.device_target)
    train = ["train.py", "--data_url", args.data_url, *where, "--train_url", out, "--pre_ckpt_path", args.pre_ckpt_path]
    train += ["--recipe", "recommended", "--steps", args.steps, "--seed", args.seed, "--image_size", size]
    train += ["--train_tile", tile] if tile else []
    train += ["--ignore_mask", args.ignore_mask] if args.ignore_mask else []
    train += ["--resume"] if (folder / f"{args.category}_resume.ckpt").exists() else []
    memory = program(*train)
    model = ("--ckpt_path", folder / f"{args.category}_last.ckpt", *where)
    if args.good_images:
        program("-m", "src.calibrate", *model, "--image_path", args.good_images)
    program("test.py", *model, "--eval_url", args.data_url, "--out_dir", out)
    trained, results = read_json(folder / "train.json"), read_json(folder / "results.json")
    return {
        "setting": setting,
        "image_size": results["image_size"],
        "pieces": trained["config"].get("train_tile"),
        "steps": trained["steps_per_epoch"] * len(trained["epochs"]),
        "epochs": len(trained["epochs"]),
        "train_memory_mb": round(memory),
        **{name: results[name] for name in ("image_auroc", "pixel_auroc", "pro", "images", "decision")},
        "recall_by_defect": recall_by_defect(results),
    }


def recall_by_defect(results):
    """Return, by defect type, how many images are called defective and how many there are; None without verdicts."""
    if results["decision"] is None:
        return None
    counts = {}
    for score in results["scores"]:
        found, count = counts.get(score["defect"], (0, 0))
        counts[score["defect"]] = (found + (score["verdict"] == "defective"), count + 1)
    return {defect: list(pair) for defect, pair in sorted(counts.items()) if defect != "good"}


def rate(one):
    """Return "3 of 4 (0.19 to 0.99)" of a rate's count and interval."""
    (found, count), (low, high) = one
    return f"{found} of {count} ({low:.2f} to {high:.2f})"


def results_table(rows):
    """Return the table of what was found, and in what memory; time is told by ``benchmarks.image_size``."""
    lines = ["| " + " | ".join(CAPTIONS) + " |", "| --- " * len(CAPTIONS) + "|"]
    for row in rows:
        height, width = np.broadcast_to(row["image_size"], 2)
        pieces = "pieces of {}x{}".format(*row["pieces"]) if row["pieces"] else "whole images"
        cells = [f"{height}x{width}", f"{pieces}, {row['steps']} steps"]
        cells += [f"{row[name]:.3f}" for name in ("image_auroc", "pixel_auroc", "pro")]
        decision = row["decision"]
        if decision:
            found, alarms = decision["true_positives"], decision["false_positives"]
            missed, passed = decision["false_negatives"], decision["true_negatives"]
            cells.append(rate(((found, found + missed), decision["recall"]["interval"])))
            cells.append(rate(((alarms, alarms + passed), decision["false_positive_rate"]["interval"])))
        else:
            cells += ["", ""]
        cells.append(f"{row['train_memory_mb'] / 1000:.1f} GB")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def defects_table(rows):
    """Return the table of how many images of each defect type were found."""
    with_verdicts = [row for row in rows if row["recall_by_defect"]]
    if not with_verdicts:
        return ""
    types = list(with_verdicts[0]["recall_by_defect"])
    lines = ["| image size | " + " | ".join(types) + " |", "| --- " * (1 + len(types)) + "|"]
    for row in with_verdicts:
        height, width = np.broadcast_to(row["image_size"], 2)
        cells = ["{} of {}".format(*row["recall_by_defect"][name]) for name in types]
        lines.append(f"| {height}x{width} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def median_samples(results, samples):
    """Return of each defect type the test image of median score."""
    by_file = {f"{sample.path.parent.name}/{sample.path.name}": sample for sample in samples}
    chosen = []
    for defect in sorted({score["defect"] for score in results["scores"]} - {"good"}):
        scores = sorted((one["score"], one["file"]) for one in results["scores"] if one["defect"] == defect)
        chosen.append(by_file[scores[len(scores) // 2][1]])
    return chosen


def maps_of(folder, category, samples):
    """Return the anomaly maps of some images, and the model's view."""
    from src.data.arrays import decode_images
    from src.model.maps import predict_maps
    from src.model.model_file import inspect_model, load_network

    model = inspect_model(folder / category / f"{category}_last.ckpt", category=category)
    return predict_maps(load_network(model), decode_images(samples, view=model.view), batch_size=1), model.view


def near_borders(view, tile):
    """Return which pixels lie within half a stride of a border that a piece has inside of the image: bool (H, W)."""
    near = np.zeros(view.size, bool)
    for rows, columns in Pieces(view, tile).windows:
        for window, side, along in ((rows, view.size.height, near), (columns, view.size.width, near.T)):
            for edge in {window.start, window.stop} - {0, side}:
                along[edge - 8 : edge + 8] = True
    return near


def border_effect(maps, near):
    """Return the geometric mean of the maps near the borders, as a share of that elsewhere."""
    logarithms = np.log(np.maximum(maps.astype(np.float64), np.finfo(np.float32).tiny))
    return float(np.exp(logarithms[:, near].mean() - logarithms[:, ~near].mean()))


def borders_table(args):
    """Return the table of the borders' effect on good test images."""
    good = [sample for sample in list_test(args.data_url, args.category) if not sample.is_defective]
    lines = ["| setting | maps near borders / elsewhere |", "| --- | --- |"]
    for setting in args.settings:
        maps, view = maps_of(args.work_folder / setting.replace("/", "-"), args.category, good)
        lines.append(f"| {setting} | {border_effect(maps, near_borders(view, args.borders)):.3f} |")
    return "\n".join(lines)


def maps_at(folder, category, samples, shape):
    """Return the anomaly maps of some images in units of the threshold, resized to a height and width."""
    maps, _ = maps_of(folder, category, samples)
    unit = read_json(folder / category / "results.json")["decision"]["threshold"]
    return [cv2.resize(one / unit, shape[::-1], interpolation=cv2.INTER_LINEAR) for one in maps]


def detail_of(mask):
    """Return the part of an image around the defect of its mask: half a panel, shifted to lie within."""
    (width, height), (rows, columns) = PANEL, np.nonzero(mask)
    top, left = int(rows.mean()) - height // 4, int(columns.mean()) - width // 4
    top, left = (
        max(0, min(at, side)) for at, side in ((top, len(mask) - height // 2), (left, mask.shape[1] - width // 2))
    )
    return np.s_[top : top + height // 2, left : left + width // 2]


def draw_figure(args, path):
    """Write the figure: the first image as a whole, then the place of every defect, with mask and maps beside it."""
    last = args.work_folder / args.settings[-1].replace("/", "-")
    first = args.work_folder / args.settings[0].replace("/", "-")
    samples = median_samples(read_json(last / args.category / "results.json"), list_test(args.data_url, args.category))
    images = [np.array(Image.open(sample.path).convert("RGB")) for sample in samples]
    masks = [np.array(Image.open(sample.mask_path).convert("RGB")) for sample in samples]
    maps = [maps_at(folder, args.category, samples, images[0].shape[:2]) for folder in (first, last)]
    rows = []
    for i, mask in enumerate(masks):
        panels = [images[i], mask, *(colour_map(of_one[i], 1.0) for of_one in maps)]
        detail = detail_of(mask[..., 0])
        if i == 0:
            whole = Image.fromarray(panels[0])
            box = (detail[1].start, detail[0].start, detail[1].stop, detail[0].stop)
            ImageDraw.Draw(whole).rectangle(box, outline="red", width=5)
            rows.append([np.array(whole), *panels[1:]])
        rows.append([panel[detail] for panel in panels])
    gap = 6
    sheet = Image.new("RGB", (4 * (PANEL[0] + gap) - gap, len(rows) * (PANEL[1] + gap) - gap), "white")
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            how = Image.Resampling.BOX if y == 0 else Image.Resampling.NEAREST
            place = (x * (PANEL[0] + gap), y * (PANEL[1] + gap))
            sheet.paste(Image.fromarray(panel).resize(PANEL, how), place)
    with atomic_path(path) as temporary:
        sheet.save(temporary, optimize=True)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pre_ckpt_path", required=True, help="as of train.py, absolute, or random")
    parser.add_argument("--work_folder", type=Path, required=True)
    parser.add_argument("--settings", nargs="+", default=["256", "208x320", "800x1280"], metavar="SIZE[/TILE]")
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps of each training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device_target", default="auto")
    parser.add_argument("--data_url", type=Path, help="default: the web of the demo is drawn")
    parser.add_argument("--category", default="web")
    parser.add_argument("--good_images", type=Path, help="folder of images that set the threshold")
    parser.add_argument("--ignore_mask", type=Path, help="as of train.py")
    parser.add_argument("--readme", type=Path, nargs="*", default=[], help="pages whose tables to replace")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--borders", type=int, metavar="TILE", help="side of the pieces whose borders are looked at")
    return parser.parse_args(argv)


def main(args):
    for name in ("work_folder", "data_url", "good_images", "ignore_mask"):  # the programs run in the project's folder
        path = getattr(args, name)
        setattr(args, name, path and path.resolve())
    args.work_folder.mkdir(parents=True, exist_ok=True)
    if args.data_url is None:
        args.data_url, args.good_images = draw_data(args.work_folder)
    about = {"category": args.category, "steps": args.steps, "seed": args.seed}
    if args.ignore_mask:
        about["ignore_mask_sha256"] = file_sha256(args.ignore_mask)
    result = args.work_folder / "small_defects.json"
    found = read_json(result) if result.exists() else {"settings": about, "rows": []}
    if found["settings"] != about:
        raise InputError(f"{result}: holds results of {json.dumps(found['settings'])}; give another --work_folder")
    rows = {row["setting"]: row for row in found["rows"]}
    for setting in args.settings:
        if setting not in rows:
            rows[setting] = run_setting(args, setting)
            write_json(result, {"settings": about, "rows": list(rows.values())})
    chosen = [rows[setting] for setting in args.settings]
    tables = f"{results_table(chosen)}\n\n{defects_table(chosen)}".strip()
    print(tables)
    for page in args.readme:
        replace_marked(page, TABLE, lambda _: tables)
    if args.borders:
        print(borders_table(args))
    if args.figure:
        draw_figure(args, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
