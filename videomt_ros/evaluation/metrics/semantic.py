"""Semantic segmentation of videos: accuracy (mIoU) and consistency over time (mVC).

Miao et al., VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild, CVPR 2021, section 5,
in the reading of the scorers that VSPW publishes:

    IoU(class) = TP / (TP + FP + FN), pixels of all videos that have a true class
    mIoU       = mean of IoU over the classes that are true anywhere
    FWIoU      = mean of IoU, weighted by the true pixels of the class
    accuracy   = pixels that are right / pixels that have a true class
    VC_n       = pixels whose truth and prediction stay the same over n frames
                 / pixels whose truth does
    mVC_n      = mean of VC_n over the windows of n frames of all videos

Letters: H W image size in pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomt_ros.evaluation.metrics.id_pairs import count_pairs

WINDOWS = (8, 16)
"""Numbers n of frames over which pixels are compared."""
MAX_CLASSES = 254
"""Largest number of classes that a byte can hold beside void (0) and ignored (255)."""


@dataclass(frozen=True)
class SemanticScores:
    """Result of `SemanticQuality`."""

    confusion: NDArray[np.int64]
    """Number of pixels by true and predicted class, (K, K + 1); the last column counts pixels of
    frames without a prediction."""
    consistency: dict[int, tuple[float, int]]
    """Sum and number of the defined values of VC_n, by n."""

    def __add__(self, other: SemanticScores) -> SemanticScores:
        """Add up the scores of two sets of videos, which must have no video in common."""
        sums = {
            n: (total + other.consistency[n][0], count + other.consistency[n][1])
            for n, (total, count) in self.consistency.items()
        }
        return SemanticScores(self.confusion + other.confusion, sums)

    def figures(self) -> dict[str, float | None]:
        """Compute mIoU, FWIoU, accuracy, mVC8, mVC16, mVC16_as_printed; None where undefined.

        The scripts of DVIS++ and VidEoMT do not clear the list of windows of 8 frames before those
        of 16: mVC16_as_printed is the mean over both.
        """
        sums = np.array([self.consistency[n] for n in WINDOWS])
        iou = self._iou()
        weights = self.confusion.sum(axis=1)
        occurs, total = weights > 0, weights.sum()
        return {
            'mIoU': _share(iou[occurs].sum(), occurs.sum()),
            'FWIoU': _share((weights * iou)[occurs].sum(), total),
            'accuracy': _share(np.trace(self.confusion), total),
            **{f'mVC{n}': _share(*self.consistency[n]) for n in WINDOWS},
            'mVC16_as_printed': _share(*sums.sum(axis=0)),
        }

    @property
    def per_class(self) -> dict[int, dict[str, float | None]]:
        """IoU of each class 0..K-1; None for a class that never occurs in the truth."""
        return {
            class_id: {'IoU': None if np.isnan(iou) else float(iou)}
            for class_id, iou in enumerate(self._iou())
        }

    def _iou(self) -> NDArray[np.float64]:
        """Compute the IoU of each class, (K,), nan for a class that never occurs in the truth."""
        right, truth = np.diag(self.confusion), self.confusion.sum(axis=1)
        union = truth + self.confusion.sum(axis=0)[:-1] - right
        return np.divide(right, union, out=np.full(len(right), np.nan), where=truth > 0)


class SemanticQuality:
    """Compares masks of classes with the truth, frame by frame.

    True masks hold 0 for void and 1..K for the classes 0..K-1; larger values are ignored.
    Predictions hold 0..K-1, and any value where the truth is void or ignored. For VC both are
    compared as they are, void and ignored included, and the prediction need not be right. As in
    the scorers of VSPW, the last window of each video is left out, and so are windows in which
    the truth of no pixel stays the same.

    >>> quality = SemanticQuality(num_classes=2)
    >>> true_mask, pred_mask = np.array([[1, 1, 2, 0]]), np.array([[0, 1, 1, 1]])
    >>> quality.update(true_mask.astype(np.uint8), pred_mask.astype(np.uint8))
    >>> figures = quality.result().figures()  # IoU 1/2 and 1/2
    >>> figures['mIoU'], figures['accuracy'], figures['mVC8']
    (0.5, 0.6666666666666666, None)
    """

    def __init__(self, num_classes: int) -> None:
        """Set the number of classes.

        Raises:
            ValueError: there are more classes than a mask can hold, or none.
        """
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f'Expected 1..{MAX_CLASSES} classes, got {num_classes}.')
        self._num_classes = num_classes
        self._confusion = np.zeros((num_classes, num_classes + 1), np.int64)
        self._consistency = dict.fromkeys(WINDOWS, (0.0, 0))
        self._true_runs: _Runs | None = None
        self._pred_runs: _Runs | None = None

    def start_video(self) -> None:
        """Prepare for the first frame of another video."""
        self._true_runs = self._pred_runs = None

    def update(self, true_mask: NDArray[np.uint8], pred_mask: NDArray[np.uint8] | None) -> None:
        """Add the next frame of the video.

        Args:
            true_mask: true class + 1 of each pixel, (H, W), 0 for void.
            pred_mask: predicted class of each pixel, (H, W); None if there is no prediction: then
                all pixels are missed, and none is consistent.

        Raises:
            ValueError: masks differ in size or type, or a predicted value is no class.
        """
        for side, mask in (('true', true_mask), ('predicted', pred_mask)):
            if mask is not None and mask.dtype != np.uint8:
                raise ValueError(f'Expected a {side} mask of type uint8, got {mask.dtype}.')
        if self._true_runs is not None and true_mask.shape != self._true_runs.mask.shape:
            raise ValueError(
                f'Expected masks of the size of the frame before, {self._true_runs.mask.shape}, '
                f'got {true_mask.shape}; call start_video before another video.'
            )
        self._count_pixels(true_mask, pred_mask)
        if self._true_runs is None:
            self._true_runs = _Runs(true_mask)
        else:
            # Windows that end with the frame before count now that it is not the last one.
            self._count_steady(self._true_runs, self._pred_runs)
            self._true_runs.add(true_mask)
        if pred_mask is None:
            self._pred_runs = None
        elif self._pred_runs is None:
            self._pred_runs = _Runs(pred_mask)
        else:
            self._pred_runs.add(pred_mask)

    def _count_pixels(
        self, true_mask: NDArray[np.uint8], pred_mask: NDArray[np.uint8] | None
    ) -> None:
        """Add the pixels of a frame to the confusion matrix."""
        true_values, pred_classes, areas = count_pairs(
            true_mask, np.zeros_like(true_mask) if pred_mask is None else pred_mask
        )
        if pred_mask is None:
            pred_classes = np.full_like(true_values, self._num_classes)
        valid = (true_values > 0) & (true_values <= self._num_classes)
        wrong = pred_classes[valid & (pred_classes >= self._num_classes)]
        if wrong.size and pred_mask is not None:
            raise ValueError(
                f'Expected predicted classes 0..{self._num_classes - 1} where the truth has a '
                f'class, got {sorted(set(wrong.tolist()))}; predictions are one below the values '
                'of true masks.'
            )
        self._confusion[true_values[valid] - 1, pred_classes[valid]] += areas[valid]

    def _count_steady(self, true_runs: _Runs, pred_runs: _Runs | None) -> None:
        """Add the windows that end with the latest frame of these runs."""
        for n in WINDOWS:
            steady = true_runs.lengths >= n
            if num_steady := np.count_nonzero(steady):
                both = (
                    0 if pred_runs is None else np.count_nonzero(steady & (pred_runs.lengths >= n))
                )
                total, count = self._consistency[n]
                self._consistency[n] = total + both / num_steady, count + 1

    def result(self) -> SemanticScores:
        """Compute the scores over all frames so far."""
        return SemanticScores(self._confusion.copy(), dict(self._consistency))


class _Runs:
    """Number of frames for which each pixel has kept its value, up to the longest window."""

    def __init__(self, mask: NDArray[np.uint8]) -> None:
        self.mask = mask.copy()
        self.lengths = np.ones_like(mask)

    def add(self, mask: NDArray[np.uint8]) -> None:
        """Add the next frame, (H, W)."""
        self.lengths *= mask == self.mask
        np.minimum(self.lengths, max(WINDOWS) - 1, out=self.lengths)
        self.lengths += 1
        self.mask[:] = mask


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
