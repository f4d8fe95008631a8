"""Pictures of a validation: predictions beside the truth, on a page for the run's folder and logs.

Pictures are drawn as in the report of an evaluation: a track has number and colour of the true
object that it overlaps most. Letters: H W size of a page in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray

from videomt_ros.datasets.dataset import Dataset
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.report.contact_sheet import contact_sheet
from videomt_ros.evaluation.report.overlays import VideoViews
from videomt_ros.files import whole_file

_MOMENTS = 2
"""Number of frames per video, enough to see whether a number stays with its object."""
_QUALITY = 85
"""Quality of the JPEG, 0..100."""


def validation_page(
    dataset: Dataset, results: Path, num_videos: int, title: str
) -> NDArray[np.uint8]:
    """Draw the truth and the prediction of some frames side by side.

    Args:
        dataset: data set with annotations.
        results: folder of the result files of one mode.
        num_videos: number of videos to draw, the first ones, at least 1.
        title: line at the top of the page.

    Returns:
        The page, (H, W, 3) uint8 RGB. A frame that cannot be drawn is grey, with the reason in its
        caption.

    Raises:
        DatasetError: the annotations or the results cannot be used.
    """
    videos = dataset.videos[:num_videos]
    family = family_of(dataset.family)
    truth = family.load_truth(dataset, videos)
    predicted = family.load_results(results, dataset)
    images, captions = [], []
    for video in videos:
        num_frames = len(video.frame_names)
        moments = {num_frames * (2 * i + 1) // (2 * _MOMENTS) for i in range(_MOMENTS)}
        views = VideoViews(video, moments, truth.labels, predicted)
        for picture in map(views.picture, sorted(moments)):
            for side, jpeg in (('truth', picture.truth), ('predicted', picture.predicted)):
                caption = f'{video.name}, frame {picture.index}, {side}'
                if jpeg is None:
                    caption = f'{caption}: {picture.problem}'
                images.append(_decoded(jpeg, video.size))
                captions.append(caption)
    return contact_sheet(images, captions, title, columns=2 * _MOMENTS)


def _decoded(jpeg: bytes | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a JPEG to RGB; None becomes a grey picture."""
    if jpeg is None:
        return np.full((*size, 3), 200, np.uint8)
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def write_page(page: NDArray[np.uint8], path: Path) -> None:
    """Write a page (H, W, 3) uint8 RGB as a JPEG that is complete or absent; makes its folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    bgr = cv2.cvtColor(page, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    with whole_file(path) as file:
        file.write(jpeg.tobytes())


def log_page(page: NDArray[np.uint8], loggers: Iterable[Logger], step: int) -> None:
    """Send a page (H, W, 3) uint8 RGB to the loggers that take images."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            # TensorBoard stores PNGs, which are large, and shows them at about half the size.
            half = cv2.resize(page, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            logger.experiment.add_image('val/pictures', half, step, dataformats='HWC')
        elif hasattr(logger, 'log_image'):  # Weights & Biases
            logger.log_image('val/pictures', [page], step=step)
