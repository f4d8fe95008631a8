"""The published protocol, beside a plain implementation that holds a whole video in memory."""

from __future__ import annotations

import resource
import tracemalloc
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F

from tests.evaluation.made_videos import STEP_NS, MadeVideo, made_dataset
from tests.made_engine import made_outputs
from videomt_ros.datasets import rle
from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.mask_png import read_ids, read_mask
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.evaluation.families.instance_results import stored_tracks
from videomt_ros.evaluation.families.panoptic import PanopticResults
from videomt_ros.evaluation.predict import Predictor
from videomt_ros.evaluation.whole_video import (
    Choice,
    MaskFrame,
    WholeVideo,
    choose_pairs,
    choose_segments,
    panoptic_frames,
)
from videomt_ros.inference.preprocess import Geometry, Preprocessor
from videomt_ros.model import VidEoMT

FAMILY_NAMES = tuple(FAMILIES)
ALL = np.ones(3, bool)


@pytest.fixture
def sure_net(tiny_net):
    """The tiny network with probabilities of all sizes, some above 0.8."""
    with torch.no_grad():
        tiny_net.class_head.weight *= 60
        tiny_net.class_head.bias += torch.tensor([1.0, 0.0, 1.0, -1.0])
    return tiny_net


def plain_outputs(net, video):
    """Run the network on all frames; returns their logits: (T, Q, K + 1) and (Q, T, h, w)."""
    prepare = Preprocessor(net.config, torch.device('cpu'), torch.float32)
    state, classes, masks, annotated = net.initial_state(1), [], [], []
    with torch.inference_mode():
        for frame in video.frames():
            image, geometry = prepare(frame.image)
            outputs, state = net.step(image, state)
            classes.append(outputs.class_logits[0])
            masks.append(outputs.mask_logits[0])
            annotated.append(frame.index is not None)
    return torch.stack(classes), torch.stack(masks, 1)[:, annotated], geometry


def plain_resize(masks, geometry, middle):
    """Resize (N, T, h, w) to (N, T, H, W), with a function between the two resizes."""
    height, width = geometry.resized_size
    masks = F.interpolate(masks, geometry.padded_size, mode='bilinear', align_corners=False)
    masks = middle(masks[:, :, :height, :width])
    return F.interpolate(masks, geometry.image_size, mode='bilinear', align_corners=False)


def plain_instances(net, video, count=10):
    """Compute [(class, score, masks (T, H, W))] by falling score."""
    class_logits, mask_logits, geometry = plain_outputs(net, video)
    probs = class_logits.double().mean(0).softmax(-1)[:, :-1]
    scores, places = probs.flatten().topk(count)
    found = []
    for score, place in zip(scores.tolist(), places.tolist(), strict=True):
        query, class_id = divmod(place, probs.shape[1])
        masks = plain_resize(mask_logits[query][None], geometry, lambda x: x)[0] > 0
        found.append((class_id, score, masks.numpy()))
    return found


def plain_panoptic(net, video):
    """Compute {query or (class,) of stuff: class and mask (H, W)} for each frame."""
    class_logits, mask_logits, geometry = plain_outputs(net, video)
    scores, classes = class_logits.double().mean(0).softmax(-1).max(-1)
    keep = [q for q in range(len(scores)) if classes[q] < 3 and scores[q] > 0.8]
    probs = plain_resize(mask_logits[keep], geometry, torch.sigmoid)  # N, T, H, W
    winner = (probs * scores[keep].float().view(-1, 1, 1, 1)).argmax(0)
    frames = [{} for _ in range(probs.shape[1])]
    for k, q in enumerate(keep):
        own = probs[k] >= 0.5
        won = winner == k
        if not own.sum() or won.sum() / own.sum() < 0.8 or not (own & won).any():
            continue
        class_id = int(classes[q])
        key = q if net.config.thing_classes[class_id] else ('stuff', class_id)
        for t, mask in enumerate((own & won).numpy()):
            if mask.any():
                before = frames[t].get(key, (class_id, np.zeros_like(mask)))[1]
                frames[t][key] = (class_id, before | mask)
    return frames


def plain_semantic(net, video):
    """Compute the sums per class, (K, T, H, W)."""
    class_logits, mask_logits, geometry = plain_outputs(net, video)
    probs = class_logits.double().mean(0).softmax(-1)[:, :-1].float()
    masks = plain_resize(mask_logits, geometry, torch.sigmoid)
    return torch.einsum('qk,qthw->kthw', probs, masks).numpy()


def new_results(dataset, video, folder):
    return FAMILIES[dataset.family].new_results(folder, video, dataset.categories)


def predict(net, video, family, folder, modes=('published',), **options):
    """Run the predictor; returns its outcome, and what the results of each mode say."""
    dataset = made_dataset(family, [video])
    classes = map_classes(net.config.class_names, dataset.categories, dataset.name)
    results = {mode: new_results(dataset, video, folder / mode) for mode in modes}
    predictor = Predictor(net, FAMILIES[family], classes, **options)
    done = predictor.predict(video, results, folder / 'scratch')
    return done, {mode: read(family, video, folder / mode, done, mode) for mode in modes}


def read(family, video, folder, done, mode):
    """Read everything that the results of a video say."""
    if mode in done.errors:
        return None
    names = [f'{name[-9:-4]}.png' for name in video.frame_names]
    if family == 'ytvis':
        tracks = stored_tracks(folder, video.video_id, done.contents[mode])
        return [(track.category_id, track.score, list(track.masks)) for track in tracks]
    if family in ('vipseg', 'coco_panoptic'):
        images = [read_ids(folder / name, video.size) for name in names]
        return [
            {s['id']: (s['category_id'], image == s['id']) for s in segments}
            for image, segments in zip(images, done.contents[mode]['segments'], strict=True)
        ]
    return [read_mask(folder / name, video.size) for name in names]


def same(a, b):
    """Compare what `read` gives."""
    return repr_of(a) == repr_of(b)


def repr_of(value):
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: repr_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [repr_of(item) for item in value]
    return value


@pytest.mark.parametrize('size', [(70, 90), (64, 80), (200, 50)])
@pytest.mark.parametrize('seed', [0, 1])
def test_instances_are_those_of_a_plain_implementation(sure_net, tmp_path, size, seed):
    video = MadeVideo(size=size, seed=seed, unwatched=(2,))
    _, results = predict(sure_net, video, 'ytvis', tmp_path)
    expected = plain_instances(sure_net, video)
    assert len(results['published']) == len(expected) == 10
    for (category_id, score, masks), (class_id, true_score, true_masks) in zip(
        results['published'], expected, strict=True
    ):
        assert category_id == 10 + class_id
        assert score == pytest.approx(true_score, abs=1e-12)
        assert all(mask is not None for mask in masks)
        np.testing.assert_array_equal([rle.decode(mask) for mask in masks], true_masks)
    covers = [rle.decode(masks[0]).mean() for _, _, masks in results['published']]
    assert min(covers) < 0.9
    assert max(covers) > 0.1


@pytest.mark.parametrize('size', [(70, 90), (64, 80), (200, 50)])
@pytest.mark.parametrize('seed', [0, 1])
def test_panoptic_segments_are_those_of_a_plain_implementation(sure_net, tmp_path, size, seed):
    video = MadeVideo(size=size, seed=seed, unwatched=(0,))
    _, results = predict(sure_net, video, 'vipseg', tmp_path)
    expected = plain_panoptic(sure_net, video)
    for found, true in zip(results['published'], expected, strict=True):
        assert sorted((c - 10, m.tobytes()) for c, m in found.values()) == sorted(
            (c, m.tobytes()) for c, m in true.values()
        )
    assert any(expected)


@pytest.mark.parametrize('size', [(70, 90), (64, 80)])
def test_classes_of_pixels_are_those_of_a_plain_implementation(sure_net, tmp_path, size):
    video = MadeVideo(size=size)
    _, results = predict(sure_net, video, 'vspw', tmp_path)
    sums = plain_semantic(sure_net, video)
    chosen = np.array(results['published']) - 10
    best = sums.max(0)
    # Float32 sums in another order: where two classes are as good as equal, either is right.
    np.testing.assert_allclose(np.take_along_axis(sums, chosen[None], 0)[0], best, rtol=1e-5)
    assert (chosen == sums.argmax(0)).mean() > 0.999
    assert len(np.unique(chosen)) > 1


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_second_pass_gives_what_the_file_would_have_given(sure_net, tmp_path, family, caplog):
    video = MadeVideo(unwatched=(1,))
    _, kept = predict(sure_net, video, family, tmp_path / 'a')
    assert not caplog.records
    _, again = predict(sure_net, video, family, tmp_path / 'b', spool_limit=20_000)
    assert 'a second time' in caplog.text
    assert same(kept, again)


def test_a_full_disk_leads_to_the_second_pass(tmp_path, tiny_config):
    geometry = Geometry.of((64, 80), tiny_config)
    outputs = made_outputs(torch.zeros(1, 6, 4), torch.zeros(1, 6, 16, 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = WholeVideo(tmp_path)
    whole.add(0, outputs, geometry)
    assert whole.is_spooled
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        whole.add(1, outputs, geometry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not whole.is_spooled
    assert list(tmp_path.iterdir()) == []
    whole.add(2, outputs, geometry)
    assert whole.class_logits().shape == (6, 4)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_masks_wait_bit_for_bit_in_the_networks_own_type(tmp_path, tiny_config, dtype):
    generator = torch.Generator().manual_seed(0)
    geometry = Geometry.of((64, 80), tiny_config)
    masks = torch.randn(3, 6, 16, 20, generator=generator).to(dtype)
    whole = WholeVideo(tmp_path)
    for t in range(3):
        whole.add(t, made_outputs(torch.zeros(1, 6, 4, dtype=dtype), masks[t][None]), geometry)
    for frame, expected in zip(whole.frames(), masks, strict=True):
        assert torch.equal(frame.read([4, 1]), expected[[4, 1]])
        assert frame.read([4]).dtype == dtype
        assert frame.read([]).shape == (0, 16, 20)
    whole.close()


def test_the_mean_weighs_all_frames_alike(tmp_path, tiny_config):
    geometry = Geometry.of((64, 80), tiny_config)
    whole = WholeVideo(tmp_path)
    for index, value in ((0, 1.0), (None, 2.0), (1, 6.0)):
        whole.add(
            index, made_outputs(torch.full((1, 6, 4), value), torch.zeros(1, 6, 4, 5)), geometry
        )
    assert torch.equal(whole.class_logits(), torch.full((6, 4), 3.0).double())
    assert [frame.index for frame in whole.frames()] == [0, 1]


def test_logits_that_are_no_numbers_end_the_video(tmp_path, tiny_config):
    geometry = Geometry.of((64, 80), tiny_config)
    whole = WholeVideo(tmp_path)
    whole.add(0, made_outputs(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4, 5)), geometry)
    with pytest.raises(ValueError, match='frame 1 are not finite numbers. Use another precision'):
        whole.add(
            1, made_outputs(torch.full((1, 6, 4), torch.inf), torch.zeros(1, 6, 4, 5)), geometry
        )


def logits_of(*rows):
    """Build class logits whose softmax has these rows."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_pairs_come_by_score_and_leave_out_what_the_data_set_lacks():
    logits = logits_of([0.5, 0.25, 0.125, 0.125], [0.25, 0.5, 0.125, 0.125])
    assert choose_pairs(logits, ALL, 3) == [
        Choice(0, 0, pytest.approx(1 / 2)),
        Choice(1, 1, pytest.approx(1 / 2)),
        Choice(0, 1, pytest.approx(1 / 4)),
    ]
    usable = np.array([True, False, True])
    pairs = choose_pairs(logits, usable, 10)
    assert [(p.query, p.class_id) for p in pairs] == [(0, 0), (1, 0), (0, 2), (1, 2)]
    assert choose_pairs(logits, np.zeros(3, bool), 10) == []


def test_only_sure_segments_compete():
    logits = logits_of([0.85, 0.05, 0.05, 0.05], [0.75, 0.05, 0.1, 0.1], [0.02, 0.03, 0.05, 0.9])
    assert [(c.query, c.class_id) for c in choose_segments(logits)] == [(0, 0)]
    assert choose_segments(logits[1:]) == []


def contest(tmp_path, first, second):
    """Settle two frames of 8 x 8 pixels; segment 0 beats segment 1 where both are.

    Segment 1 covers row 0 of the first frame and rows 0 to 4 of the second. Segment 0 covers so
    many columns of row 0 of the first frame, and so many rows of the second.
    """
    geometry = Geometry((8, 8), (8, 8), (8, 8))
    masks = torch.full((2, 2, 8, 8), -9.0)  # frames, segments
    masks[0, 1, :1] = masks[1, 1, :5] = 9.0
    masks[0, 0, 0, :first] = masks[1, 0, :second] = 9.0
    frames = (
        MaskFrame(t, geometry, lambda queries, t=t: masks[t, list(queries)]) for t in range(2)
    )
    chosen = [Choice(0, 0, 0.95), Choice(1, 1, 0.9)]
    return [pixels.tolist() for _, pixels in panoptic_frames(frames, chosen, tmp_path)]


def test_a_segment_stays_by_its_share_of_the_whole_video(tmp_path):
    # Segment 1 wins 4 of 8 pixels and 40 of 40: 44/48 > 0.8, so it stays in both frames.
    first, second = contest(tmp_path, 4, 0)
    assert first[0] == [1] * 4 + [2] * 4
    assert second == [[2] * 8] * 5 + [[0] * 8] * 3
    # 8 of 8 and 24 of 40: 32/48 < 0.8, so it goes from both frames.
    first, second = contest(tmp_path, 0, 2)
    assert first == [[0] * 8] * 8
    assert second == [[1] * 8] * 2 + [[0] * 8] * 6


@pytest.mark.parametrize('family', FAMILY_NAMES)
@pytest.mark.parametrize('pause_s', [0, 100])
def test_both_modes_at_once_are_the_two_runs_apart(sure_net, tmp_path, family, pause_s):
    """A long pause restarts the network of the stream, but not that of the published protocol."""
    stamps_ns = [t * STEP_NS + (t > 2) * pause_s * 10**9 for t in range(6)]
    video = MadeVideo(stamps_ns=stamps_ns)
    settings = {'score_threshold': 0.3, 'min_area': 1}
    _, both = predict(
        sure_net, video, family, tmp_path / 'both', ('published', 'live'), settings=settings
    )
    apart = {}
    for mode in ('published', 'live'):
        _, one = predict(sure_net, video, family, tmp_path / mode, (mode,), settings=settings)
        apart |= one
    assert same(both, apart)
    assert both['live']


def test_the_pause_would_have_made_a_difference(sure_net, tmp_path):
    """The test above proves nothing unless the live results differ."""
    settings = {'score_threshold': 1.0}  # no track, so that a pause restarts the network
    stamps_ns = [t * STEP_NS + (t > 2) * 10**11 for t in range(6)]
    outputs = []
    for video in (MadeVideo(), MadeVideo(stamps_ns=stamps_ns)):
        stream = Predictor(sure_net, FAMILIES['ytvis'], None, settings).new_stream()
        for frame in video.frames():
            stream.push(frame.image, frame.stamp_ns)
        outputs.append(stream.outputs.class_logits)
    assert not torch.equal(*outputs)
    folders = tmp_path / 'a', tmp_path / 'b'
    results = [
        predict(sure_net, video, 'ytvis', folder, ('published', 'live'), settings=settings)[1]
        for video, folder in zip(
            (MadeVideo(), MadeVideo(stamps_ns=stamps_ns)), folders, strict=True
        )
    ]
    assert same(results[0]['published'], results[1]['published'])


class FullDisk(PanopticResults):
    """Results that fail at one frame."""

    fails_at = 0

    def add(self, index, ids, category_ids):
        if index == self.fails_at:
            raise OSError('No space left on device')
        super().add(index, ids, category_ids)


def predict_on_full_disk(net, video, folder, fails_at):
    dataset = made_dataset('vipseg', [video])
    classes = map_classes(net.config.class_names, dataset.categories, dataset.name)
    live = FullDisk(folder / 'live', video)
    live.fails_at = fails_at
    results = {'published': new_results(dataset, video, folder / 'published'), 'live': live}
    return Predictor(net, FAMILIES['vipseg'], classes).predict(video, results, folder)


@pytest.mark.parametrize('fails_at', [0, 3])
def test_the_published_result_goes_on_where_the_live_one_fails(sure_net, tmp_path, fails_at):
    """The stream stops, and the network runs on from the state that it had."""
    video = MadeVideo()
    done = predict_on_full_disk(sure_net, video, tmp_path, fails_at)
    assert done.errors == {'live': 'OSError: No space left on device'}
    _, alone = predict(sure_net, video, 'vipseg', tmp_path / 'alone')
    found = read('vipseg', video, tmp_path / 'published', done, 'published')
    assert same(found, alone['published'])
    assert any(found)


def test_each_mode_names_the_first_thing_that_went_wrong(sure_net, tmp_path):
    done = predict_on_full_disk(sure_net, MadeVideo(fails_at=4), tmp_path, 2)
    assert done.errors == {
        'live': 'OSError: No space left on device',
        'published': 'ValueError: video_1/00004.jpg is no image.',
    }


def test_memory_does_not_grow_with_the_length(tiny_config, tmp_path):
    """300 frames leave 49 MB of mask logits on the disk, and next to nothing in memory."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VidEoMT(replace(tiny_config, num_queries=128)).eval()
    process = psutil.Process()
    dataset = made_dataset('ytvis', [])
    classes = map_classes(net.config.class_names, dataset.categories, dataset.name)

    def measure(num_frames):
        video = MadeVideo(num_frames=num_frames, size=(64, 80))
        before = process.memory_info().rss
        folder = tmp_path / str(num_frames)
        results = {
            mode: new_results(dataset, video, folder / mode) for mode in ('published', 'live')
        }
        tracemalloc.start()
        done = Predictor(net, FAMILIES['ytvis'], classes).predict(video, results, folder)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not done.errors
        return process.memory_info().rss - before, peak

    measure(20)  # what libraries set up once
    (_, peak_short), (growth, peak_long) = measure(30), measure(300)
    assert growth < 12e6
    assert peak_long - peak_short < 1.5e6
