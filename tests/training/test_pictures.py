"""The page of a validation: predictions beside the truth, in a file and in TensorBoard."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.labelled_data import SIZE, write_labelled
from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.dataset import Dataset
from videomt_ros.datasets.mask_png import write_mask
from videomt_ros.training import pictures
from videomt_ros.training.pictures import log_page, validation_page, write_page


@pytest.fixture
def semantic(tmp_path) -> Dataset:
    """Two videos whose prediction, in out/, is class 2 in every pixel."""
    write_labelled('vspw', tmp_path / 'vspw')
    dataset = open_dataset('vspw', tmp_path / 'vspw')
    for video in dataset.videos:
        for name in video.frame_names:
            stem = name.rpartition('/')[2].rpartition('.')[0]
            write_mask(tmp_path / 'out' / video.name / f'{stem}.png', np.full(SIZE, 2, np.uint8))
    return dataset


def test_truth_and_prediction_stand_side_by_side(semantic, tmp_path, monkeypatch):
    shown = {}

    def spy(images, captions, title, columns):
        shown.update(zip(captions, images, strict=True), title=title, columns=columns)
        return np.zeros((10, 20, 3), np.uint8)

    monkeypatch.setattr(pictures, 'contact_sheet', spy)
    validation_page(semantic, tmp_path / 'out', 2, 'Step 7')
    names = [video.name for video in semantic.videos]
    assert list(shown) == [  # 4 frames: the middles of both halves
        *(
            f'{name}, frame {index}, {side}'
            for name in names
            for index in (1, 3)
            for side in ('truth', 'predicted')
        ),
        'title',
        'columns',
    ]
    assert (shown['title'], shown['columns']) == ('Step 7', 4)
    predicted, truth = (
        shown[f'{names[0]}, frame 1, {side}'].astype(int) for side in ('predicted', 'truth')
    )
    # One class over all of the prediction tints its corners too; there the truth has no label.
    image = next(semantic.videos[0].frames()).image.astype(int)
    corner = np.s_[-6:, -6:]
    assert abs(predicted[corner] - image[corner]).mean() > 20
    assert abs(truth - image).mean() < abs(predicted - image).mean()


def test_a_video_more_or_less_is_a_row_more_or_less(semantic, tmp_path):
    pages = [validation_page(semantic, tmp_path / 'out', n, '') for n in (1, 2, 3)]
    heights = [page.shape[0] for page in pages]
    assert heights[0] < heights[1] == heights[2]  # there are but two
    assert {page.dtype for page in pages} == {np.dtype(np.uint8)}


def test_a_frame_that_cannot_be_drawn_says_why(semantic, tmp_path, monkeypatch):
    for path in (tmp_path / 'out').rglob('*.png'):
        path.write_bytes(b'damaged')
    captions = []
    monkeypatch.setattr(
        pictures, 'contact_sheet', lambda images, texts, *rest, **more: captions.extend(texts)
    )
    validation_page(semantic, tmp_path / 'out', 1, '')
    assert len(captions) == 4 and all('.png' in caption for caption in captions)


def test_a_page_is_a_file_and_an_image_in_tensorboard(tmp_path):
    page = np.zeros((60, 80, 3), np.uint8)
    page[:, 40:] = (255, 0, 0)
    write_page(page, tmp_path / 'pictures' / 'step-3.jpg')
    read = cv2.imread(str(tmp_path / 'pictures' / 'step-3.jpg'))[..., ::-1].astype(int)
    assert abs(read - page)[:, 44:].max() < 10  # red stays red

    board = TensorBoardLogger(tmp_path, name='board', version='')
    images = []

    class Wandb:
        def log_image(self, key, images_, step):
            images.append((key, images_[0].shape, step))

    log_page(page, [board, Wandb()], 3)
    board.experiment.close()
    events = EventAccumulator(board.log_dir)
    events.Reload()
    (event,) = events.Images('val/pictures')
    assert (event.step, event.height, event.width) == (3, 30, 40)
    assert images == [('val/pictures', (60, 80, 3), 3)]
