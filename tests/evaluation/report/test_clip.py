from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.made_videos import MadeVideo
from videomt_ros.evaluation.families.family import Label
from videomt_ros.evaluation.report import clip
from videomt_ros.evaluation.report.clip import MAX_BYTES, clip_frames, make_clip
from videomt_ros.evaluation.report.overlays import VideoViews


class Nothing:
    """Labels of no object; those of some frames cannot be read."""

    def __init__(self, *faulty):
        self.faulty = faulty

    def frame(self, video, index):
        if index in self.faulty:
            raise KeyError(index)
        return np.zeros(video.size, np.int64), list[Label]()


def noise(seed, t, size):
    return np.random.default_rng([seed, t]).integers(0, 256, (*size, 3), dtype=np.uint8)


def opened(made):
    image = Image.open(BytesIO(made.webp))
    durations = []
    for number in range(image.n_frames):
        image.seek(number)
        image.load()
        durations.append(image.info['duration'])
    return image, durations


def test_a_clip_runs_as_fast_as_the_video():
    stamps_ns = [0, 50, 100, 5_000, 5_050]
    video = MadeVideo(num_frames=5, stamps_ns=[stamp * 10**6 for stamp in stamps_ns])
    made = make_clip(VideoViews(video, range(5), Nothing(), Nothing()), range(5))
    assert made.frames == (0, 1, 2, 3, 4) and not made.problem and made.has_truth
    image, durations = opened(made)
    assert image.size == (2 * 90 + 6, 70) and image.info['loop'] == 0
    assert durations == [50, 50, 1000, 50, 1000]  # a gap is no reason to wait for seconds
    assert Image.open(BytesIO(made.still)).size == image.size


def test_a_clip_without_truth_has_one_side():
    views = VideoViews(MadeVideo(num_frames=3), range(3), None, Nothing())
    made = make_clip(views, range(3))
    assert not made.has_truth and opened(made)[0].size == (90, 70)


def test_a_clip_of_noise_is_small_all_the_same():
    video = MadeVideo(num_frames=20, size=(300, 330), image=noise)
    made = make_clip(VideoViews(video, range(20), Nothing(), Nothing()), range(20))
    assert made.frames and 0 < len(made.webp) <= MAX_BYTES
    assert opened(made)[0].n_frames == len(made.frames) >= 5


def test_a_frame_that_cannot_be_drawn_is_left_out():
    views = VideoViews(MadeVideo(num_frames=5), range(5), Nothing(2), Nothing(4))
    assert make_clip(views, range(5)).frames == (0, 1, 3)
    views = VideoViews(MadeVideo(num_frames=5, fails_at=2), range(5), Nothing(), Nothing())
    assert make_clip(views, range(5)).frames == (0, 1)


@pytest.mark.parametrize(
    ('video', 'problem'),
    [
        (MadeVideo(num_frames=5, fails_at=0), 'is no image'),
        (MadeVideo(num_frames=1), 'at least two frames'),
    ],
)
def test_a_clip_that_cannot_be_made_says_why(video, problem):
    frames = range(len(video.frame_names))
    made = make_clip(VideoViews(video, frames, Nothing(), Nothing()), frames)
    assert problem in made.problem and not made.webp and not made.frames


def test_a_pillow_without_webp_costs_the_clip_alone(monkeypatch):
    def encode(*args):
        raise OSError('encoder WEBP not available')

    monkeypatch.setattr(clip, '_encode', encode)
    views = VideoViews(MadeVideo(num_frames=3), range(3), None, Nothing())
    assert make_clip(views, range(3)).problem == 'encoder WEBP not available'


@pytest.mark.parametrize('num_frames', [1, 2, 39, 40, 41, 1000])
@pytest.mark.parametrize('at', [0, 0.5, 1])
def test_the_frames_of_a_clip_are_in_the_video(num_frames, at):
    switch = round(at * (num_frames - 1))
    frames = clip_frames(num_frames, [switch])
    assert switch in frames and frames[0] >= 0 and frames[-1] < num_frames
    assert frames == list(range(frames[0], frames[-1] + 1)) and len(frames) == min(40, num_frames)
