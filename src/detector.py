"""A trained model in a program of one's own: images in, scores, verdicts and regions out. The programs use it, too.

    detector = stpm.Detector.load("bottle.onnx")
    inspection = detector.inspect("new/007.png")

With an ``.onnx`` neither MindSpore nor anything else that is slow to import is needed.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from inspect import Signature
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from .data import arrays
from .data.images import Source
from .data.samples import list_images
from .data.stream import LoadedImage, decode
from .data.view import Box, View, parse_area
from .device import DEVICE_TARGETS
from .evaluation.decision import DecisionRule
from .evaluation.regions import Region, find_regions, without_small_regions
from .model.maps import Network, predict_maps
from .model.model_file import ModelFile, choose_rule, inspect_model, load_network
from .report.pictures import defect_overlay
from .utils import LARGEST, InputError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a model says of one image.

    Attributes:
        name: the path of its file; of an image in memory its place among those given, such as "images[3]".
        score: anomaly score: the maximum of the map or, with a minimum area, the highest level that a region of this
            area reaches. None only where ``error`` says why.
        relative_score: the score as a share of the threshold. None without a threshold, as the next one.
        verdict: "good", "defective" or, with a review band, "review".
        regions: where the map reaches the threshold, the highest first, in pixels of the whole picture, upright.
        anomaly_map: float32 (H, W), of the image at the model's size. None only where ``error`` says why.
        image: what the network saw, cut and resized: uint8 RGB (H, W, 3). None only where ``error`` says why.
        box: the part of the picture that map and image show, in its pixels: x, y, width, height.
        error: why the image could not be read, or that its map holds NaN; "" where all is well. ``Detector.stream``
            alone returns such.
        decode_ms: milliseconds that reading and resizing took.
        inference_ms: milliseconds of the call of the network that the image was part of.
    """

    name: str
    score: float | None = None
    relative_score: float | None = None
    verdict: str | None = None
    regions: tuple[Region, ...] = ()
    anomaly_map: np.ndarray | None = field(default=None, repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    box: Box = Box(0, 0, 0, 0)  # noqa: RUF009
    error: str = ""
    decode_ms: float = 0.0
    inference_ms: float = 0.0
    _rule: DecisionRule = field(default_factory=DecisionRule, repr=False)

    def overlay(self) -> Image.Image:
        """Return the part of the picture that was seen, with what reaches the threshold outlined: a PIL image, RGB.

        It has the box's width and height, or is enlarged to a longer side of 256 pixels.

        Raises:
            InputError: the model has no threshold, or the image could not be read.
        """
        return Image.fromarray(self._outlined(size=(self.box.width, self.box.height)))

    def _outlined(self, *, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return what ``defect_overlay`` makes of the image, resized to this width and height before."""
        rule = self._rule
        if self.image is None or self.anomaly_map is None:
            raise InputError(self.error)
        if rule.threshold is None:
            raise InputError(f"{self.name}: without a threshold there is nothing to outline; calibrate the model")
        image = self.image
        if size:
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        return defect_overlay(image, without_small_regions(self.anomaly_map, rule), rule.threshold)


def outlined(inspection: Inspection) -> np.ndarray:
    """Return the image as the network saw it with what reaches the threshold outlined, as ``defect_overlay`` does."""
    return inspection._outlined()


class Detector:
    """A trained model with its threshold: ``load`` makes one of a file, ``stpm.train`` one of good images.

        detector = Detector.load("bottle.onnx")
        print(detector.inspect("new/007.png").verdict)

    An image is a path, a PIL image, or a numpy array: uint8, (height, width, 3) in the order red, green, blue, or
    (height, width), grey. What is done to it is what the programs do, so that the scores are theirs, bit for bit: it is
    turned upright, cut to the model's region of interest, resized and normalised.

    Threads may share a detector, and there may be several in a process: each call gives what it gives alone. Models of
    MindSpore (``.ckpt``, ``.mindir``) compute one batch at a time, whichever detector asks; images are prepared
    meanwhile. ``calibrate`` is for one thread at a time; calls that have begun keep the threshold that they began with.
    """

    __signature__ = Signature()  # for help(), which would begin with what only ``load`` and the programs have

    def __init__(
        self,
        network: Network,
        *,
        view: View,
        batch_size: int,
        rule: DecisionRule = DecisionRule(),  # noqa: B008
        model: ModelFile | None = None,
    ):
        """Take what ``load`` has put together.

        Args:
            network: takes ``batch_size`` images at a time.
            view: what of an image it sees.
            rule: how maps become scores and verdicts.
            model: the file that the network is of; None: it is of none.
        """
        self._network, self._view, self._batch_size = network, view, batch_size
        self._rule, self._model = rule, model

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str = "auto",
        threshold: float | None = None,
        *,
        review: float | None = None,
        batch_size: int | None = None,
        device_id: int = 0,
    ) -> "Detector":
        """Load a model that training or export wrote; the JSON beside it is checked against it.

        Args:
            path: ``.ckpt``, ``.mindir`` or ``.onnx``. The last needs ONNX Runtime instead of MindSpore.
            device: "Ascend", "GPU", "CPU", or "auto" for the first of these that is present; an ``.onnx`` runs on CPU.
            threshold: score from which an image is defective; None: the one that is kept with the model, if one is.
            review: share of the threshold, above 0 and below 1, from which the verdict is "review"; None: as kept.
            batch_size: images per call of the network. None: 8, or the exported model's own, which is fixed. To look
                at one image at a time, 1 is several times faster.
            device_id: number of the card.

        Raises:
            InputError: the file is missing, damaged or of another kind, the device or the runtime is missing, or a
                value is none of those above.
        """
        if device not in ("auto", *DEVICE_TARGETS):
            raise InputError(f"device {device!r}: expected auto, {', '.join(DEVICE_TARGETS)}")
        smallest = float(np.finfo(np.float32).smallest_normal)
        if threshold is not None and not smallest <= threshold <= LARGEST:
            raise InputError(f"threshold {threshold!r}: expected a number from {smallest:.8g} to {LARGEST:g}")
        check_share("review", review)
        if batch_size is not None and not (isinstance(batch_size, int) and batch_size > 0):
            raise InputError(f"batch_size {batch_size!r}: expected a whole number of at least 1")
        model = inspect_model(Path(path), batch_size=batch_size)
        rule = choose_rule(model, threshold=threshold, review=review)
        return open_detector(model, rule, device_target=device, device_id=device_id)

    @property
    def path(self) -> Path | None:
        """The file of the model."""
        return self._model.path if self._model else None

    @property
    def threshold(self) -> float | None:
        """The anomaly score from which an image is defective; None: there are no verdicts."""
        return self._rule.threshold

    @overload
    def inspect(self, image: ImageLike) -> Inspection: ...  # type: ignore[overload-overlap] # a text is a sequence

    @overload
    def inspect(self, image: Sequence[ImageLike]) -> list[Inspection]: ...

    def inspect(self, image: ImageLike | Sequence[ImageLike]) -> Inspection | list[Inspection]:
        """Inspect one image, or a list of them in batches; see the class for what an image may be.

        Returns:
            An inspection, or a list of them. They hold map and image, at 256x256 pixels 0.5 MB each: for many images
            see ``stream``.

        Raises:
            InputError: an image is unreadable or of another kind; the message names it.
        """
        if not isinstance(image, str | os.PathLike | Image.Image | np.ndarray):
            if not isinstance(image, Iterable):
                raise InputError(
                    f"image: is of type {type(image).__name__}; expected a path, a PIL image or a numpy array, or a "
                    "list of them"
                )
            return list(self._inspect_readable(image))
        if isinstance(image, str | os.PathLike) and Path(image).is_dir():
            raise InputError(f"{image}: is a folder; stream() takes those, inspect() an image or a list of them")
        return next(self._inspect_readable([image]))

    def stream(self, images: str | os.PathLike[str] | Iterable[ImageLike | None]) -> Iterator[Inspection]:
        """Inspect any number of images, in order, in memory that does not depend on their number.

        Images are prepared by all cores while the network works on earlier ones: at most two batches of them are taken
        from ``images`` ahead.

        Args:
            images: a folder, of which the pictures are taken in order of their names, or any iterable. None in it says
                that nothing else is there for now, as between two shots of a camera: what was taken before comes first.

        Yields:
            An inspection for each; for one that cannot be read, or whose map holds NaN or infinity, it has no score,
            and ``error`` says why.

        Raises:
            InputError: there is no such folder, or it holds no picture.
        """
        rule = self._rule
        batch: list[LoadedImage] = []
        readable = 0
        for loaded in decode(sources(images), view=self._view, ahead=2 * self._batch_size):
            if loaded is not None:
                batch.append(loaded)
                readable += loaded.image is not None
            if loaded is None or readable == self._batch_size:
                yield from self._inspect_batch(batch, rule)
                batch, readable = [], 0
        yield from self._inspect_batch(batch, rule)

    def _inspect_batch(self, batch: list[LoadedImage], rule: DecisionRule) -> Iterator[Inspection]:
        images = [loaded.image for loaded in batch if loaded.image is not None]
        started = time.perf_counter()
        maps = iter(self._maps(np.stack(images)) if images else ())
        inference_ms = 1000 * (time.perf_counter() - started)
        for loaded in batch:
            if loaded.image is None:
                yield Inspection(loaded.name, error=loaded.error, decode_ms=1000 * loaded.seconds)
                continue
            one = next(maps)
            if not np.isfinite(one).all():  # no threshold would notice
                error = f"{loaded.name}: its anomaly map holds NaN or infinity"
                yield Inspection(loaded.name, error=error, decode_ms=1000 * loaded.seconds, inference_ms=inference_ms)
                continue
            score = float(rule.scores(one[None])[0])
            known = Inspection(
                loaded.name,
                score,
                anomaly_map=one,
                image=loaded.image,
                box=loaded.box,
                decode_ms=1000 * loaded.seconds,
                inference_ms=inference_ms,
                _rule=rule,
            )
            if rule.threshold is None:
                yield known
                continue
            regions = tuple(find_regions(one, rule, box=loaded.box))
            yield replace(known, relative_score=rule.relative(score), verdict=rule.verdict(score), regions=regions)

    def _inspect_readable(self, images: str | os.PathLike[str] | Iterable[ImageLike]) -> Iterator[Inspection]:
        def given() -> Iterator[Source]:
            for i, one in enumerate(sources(images)):
                if one is None:  # which a stream takes for a pause
                    raise InputError(f"images[{i}]: is None; expected a path, a PIL image or a numpy array")
                yield one

        for inspection in self.stream(given()):
            if inspection.error:
                raise InputError(inspection.error)
            yield inspection

    def anomaly_maps(self, images: np.ndarray) -> np.ndarray:
        """Return the anomaly maps of images that are cut and resized already: uint8 (N, H, W, 3) -> float32 (N, H, W).

        Raises:
            InputError: the images are of another size than the model's, or its weights give no finite maps.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (*self._view.size, 3):
            raise InputError(
                f"images: are {images.dtype} {images.shape}; expected uint8 (images, {self._view.size.height}, "
                f"{self._view.size.width}, 3)"
            )
        maps = self._maps(images)
        # one at a time: the test of all would take a quarter of the maps' memory
        if not all(np.isfinite(one).all() for one in maps):
            of = self._model.path if self._model else "the model"
            raise InputError(f"{of}: computes maps that hold NaN or infinity; its weights are no good")
        return maps

    def _maps(self, images: np.ndarray) -> np.ndarray:
        return predict_maps(self._network, images, batch_size=self._batch_size)

    def scores(self, images: str | os.PathLike[str] | Iterable[ImageLike]) -> np.ndarray:
        """Return the anomaly scores alone, float32 (N,), in memory that does not depend on the number of images.

        Args:
            images: as of ``stream``.

        Raises:
            InputError: an image is unreadable; the message names it.
        """
        return np.array([inspection.score for inspection in self._inspect_readable(images)], np.float32)

    def calibrate(
        self,
        good_images: str | os.PathLike[str] | Iterable[ImageLike],
        target_fpr: float = 0.01,
        *,
        min_area: int | str | None = None,
        review: float | None = None,
        save: bool = True,
    ) -> float:
        """Set the threshold by good images that the model was not trained on; return it.

        Args:
            good_images: as of ``stream``; of images of memory they are all held.
            target_fpr: share of good images that the threshold may call defective, above 0 and below 1.
            min_area: smallest region that makes an image defective: pixels of the picture, or a text such as "0.5%", of
                what is seen of it. None: as kept with the model.
            review: as of ``load``.
            save: whether the threshold is also written into the JSON beside the model, as by the program
                ``calibrate``, for every later use. False: it is this detector's alone.

        Raises:
            InputError: an image is unreadable, no threshold can be set by these, or it cannot be written, or scipy is
                not installed; the threshold stays what it was.
        """
        from .evaluation.threshold import scipy_stats
        from .model.calibration import set_threshold, store_threshold

        scipy_stats()  # if it is missing, that is said before the work
        check_share("target_fpr", target_fpr)
        check_share("review", review)
        images, area = sources(good_images), self._rule.min_area
        if min_area is not None:
            images = list(images)
            area = area_in_map(min_area, images, self._view)
        measuring = Detector(
            self._network, view=self._view, batch_size=self._batch_size, rule=DecisionRule(min_area=area)
        )
        found = [(inspection.name, inspection.score) for inspection in measuring._inspect_readable(images)]
        scores = np.array([score for _, score in found], np.float32)
        names = [Path(name).name for name, _ in found]
        if len(set(names)) < len(names):  # of several folders
            names = [name for name, _ in found]
        of = str(self._model.path if self._model else "the model")
        calibration = set_threshold(scores, target_fpr=target_fpr, of=of)
        if save:
            if self._model is None or self._model.sha256 is None:
                raise InputError(f"{of}: has no JSON beside it to keep the threshold in; save=False does without")
            store_threshold(
                self._model.path, calibration, scores, names, sha256=self._model.sha256, min_area=area, review=review
            )
        self._rule = replace(
            self._rule,
            threshold=calibration.threshold,
            min_area=area,
            review=review or self._rule.review,
            source="the model, set by good images",
        )
        return calibration.threshold


def open_detector(
    model: ModelFile,
    rule: DecisionRule,
    *,
    num_class: int | None = None,
    device_target: str = "auto",
    device_id: int = 0,
) -> Detector:
    """Load a model that ``inspect_model`` has checked, for programs that settle first what can be wrong.

    Raises:
        InputError: as by ``load_network``.
    """
    network = load_network(model, num_class=num_class, device_target=device_target, device_id=device_id)
    return Detector(network, view=model.view, batch_size=model.batch_size, rule=rule, model=model)


@overload
def sources(images: str | os.PathLike[str] | Iterable[ImageLike]) -> Iterable[Source]: ...


@overload
def sources(images: str | os.PathLike[str] | Iterable[ImageLike | None]) -> Iterable[Source | None]: ...


def sources(images: str | os.PathLike[str] | Iterable[ImageLike | None]) -> Iterable[Source | None]:
    """Return images as what ``decode`` takes; those of a folder, or the one file, are listed.

    Raises:
        InputError: there is no such file or folder, or it holds no picture.
    """
    if isinstance(images, str | os.PathLike):
        return list_images(Path(images))
    if isinstance(images, Image.Image | np.ndarray):
        raise InputError("images: is one image; expected a folder, or a list of images")
    if not isinstance(images, Iterable):
        raise InputError(f"images: is of type {type(images).__name__}; expected a folder, or a list of images")
    return (Path(one) if isinstance(one, str | os.PathLike) else one for one in images)


def area_in_map(min_area: int | str, images: Iterable[Source], view: View) -> int:
    """Return how many pixels of an anomaly map an area is: pixels of these images, or a text such as "0.5%".

    Raises:
        InputError: it is none, or more than what counts of a map; or an image is unreadable.
    """
    try:
        area = parse_area(str(min_area))
    except ValueError as error:
        raise InputError(f"min_area {min_area}: {error}") from error
    return arrays.area_in_map(area, images, view, name="min_area")


def check_share(name: str, value: float | None) -> None:
    """Check that a value, if there is one, is above 0 and below 1.

    Raises:
        InputError: it is not.
    """
    if value is not None and not (isinstance(value, float) and 0 < value < 1):
        raise InputError(f"{name} {value!r}: expected a number above 0 and below 1")
