"""Tests of evaluate(): what is kept, what is counted, and what a second run may do."""

from __future__ import annotations

import json
import threading
import zipfile
from collections import defaultdict
from concurrent.futures import Executor, Future
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.evaluation.made_videos import MadeVideo, made_dataset
from tests.inference.scripted import CAT, DOG, IMAGE, SKY, STEP_NS, Obj, ScriptedNet, make_logits
from tests.model.layout_files import build
from videomt_ros.datasets import rle
from videomt_ros.datasets.mask_png import read_ids, read_mask
from videomt_ros.engines.engine import EngineError
from videomt_ros.evaluation import overlap
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.families import FAMILIES
from videomt_ros.evaluation.run_folder import MODES, RunFolder
from videomt_ros.evaluation.sharding import Shard
from videomt_ros.inference import VideoStream

FAMILY_NAMES = tuple(FAMILIES)
SCRIPT_NAMES = ('cat', 'dog', 'sky', 'road')


def videos(count=3, **changes):
    return [MadeVideo(video_id=k, seed=k, num_frames=4, **changes) for k in range(1, count + 1)]


def result_files(out):
    """Read all result files by path; files with times are left out."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for mode in MODES
        for path in sorted((out / mode).rglob('*'))
        if path.is_file()
    }


@pytest.fixture
def steps(tiny_net):
    """Counts the steps of the tiny network."""
    done = []
    handle = tiny_net.class_head.register_forward_hook(lambda *_: done.append(1))
    yield done
    handle.remove()


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_data_set_without_truth_gives_result_files_only(tiny_net, tmp_path, family):
    metrics = evaluate(made_dataset(family, videos()), tiny_net, tmp_path)
    assert not {'published', 'live'} & set(metrics)
    assert metrics['failures'] == []
    assert metrics['run']['live_parameters']['gap_s'] == 1.0
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    names = set(result_files(tmp_path))
    for mode in MODES:
        if family == 'ytvis':
            assert {f'{mode}/results.json', f'{mode}/results.zip'} <= names
        elif family in ('vipseg', 'coco_panoptic'):
            assert {f'{mode}/pred.json', f'{mode}/pan_pred/1/00000.png'} <= names
        else:
            assert {f'{mode}/video_1/00000.png', f'{mode}/video_3/00003.png'} <= names
    assert len(names) == {'ytvis': 4, 'vipseg': 26, 'coco_panoptic': 26, 'vspw': 24}[family]


def test_results_of_instances_are_what_a_server_takes(tiny_net, tmp_path):
    evaluate(made_dataset('ytvis', videos(1)), tiny_net, tmp_path, modes=('published',))
    results = json.loads((tmp_path / 'published/results.json').read_text())
    with zipfile.ZipFile(tmp_path / 'published/results.zip') as archive:
        assert json.loads(archive.read('results.json')) == results
    assert len(results) == 10
    scores = [result['score'] for result in results]
    assert scores == sorted(scores, reverse=True)
    for result in results:
        assert result['video_id'] == 1
        assert result['category_id'] in (10, 11, 12)
        assert len(result['segmentations']) == 4
        assert all(mask['size'] == [70, 90] for mask in result['segmentations'])


@pytest.mark.parametrize('family', FAMILY_NAMES)
@pytest.mark.parametrize(
    ('lengths', 'frames', 'told'),
    [
        ((1, 1), 1, None),
        ((1, 1), 2, 'These are single images'),
        ((1, 1, 4), 2, '2 of 3 videos have fewer images'),
        ((2, 2), 3, 'These videos have fewer images'),
        ((4, 4), 2, None),
    ],
)
def test_videos_that_end_before_a_track_is_confirmed_are_told(
    tiny_net, tmp_path, family, lengths, frames, told
):
    dataset = made_dataset(family, [MadeVideo(k, length) for k, length in enumerate(lengths)])
    settings = {'confirm_frames': frames}
    metrics = evaluate(dataset, tiny_net, tmp_path, modes=('live',), settings=settings)
    noted = [note for note in metrics['run']['notes'] if '--set confirm_frames=1' in note]
    has_tracks = FAMILIES[family].has_tracks  # classes of pixels need no confirmation
    assert bool(noted) == (told is not None and has_tracks)
    assert all(note.startswith(told) for note in noted)


@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
def test_pmt_and_lvmt_score_live_what_their_streams_give(tiny_config, tmp_path, propagation):
    net = build(replace(tiny_config, architecture='pmt', propagation=propagation))
    settings = {'score_threshold': 0.0, 'association': 'slots'}
    dataset = made_dataset('ytvis', videos())
    metrics = evaluate(dataset, net, tmp_path, settings=settings)
    assert metrics['failures'] == []
    expected = []
    for video in dataset.videos:
        stream, shown = VideoStream(net, **settings), defaultdict(list)
        for frame in video.frames():
            for segment in stream.push(frame.image, frame.stamp_ns).segments:
                if segment.area:
                    shown[segment.track_id].append((frame.index, segment.area))
        expected += [(video.video_id, areas) for areas in shown.values()]
    found = []
    for result in json.loads((tmp_path / 'live/results.json').read_text()):
        masks = [(t, mask) for t, mask in enumerate(result['segmentations']) if mask]
        areas = [(t, int(rle.decode(mask).sum())) for t, mask in masks]
        found.append((result['video_id'], areas))
    assert sorted(found) == sorted(expected)
    assert len(found) > len(dataset.videos)


def test_ovis_keeps_twenty_pairs_of_a_video(tiny_net, tmp_path):
    dataset = replace(made_dataset('ytvis', videos(1)), name='ovis')
    evaluate(dataset, tiny_net, tmp_path, modes=('published',))
    # 6 queries of 3 classes make 18 pairs.
    assert len(json.loads((tmp_path / 'published/results.json').read_text())) == 18


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_video_that_fails_is_named_and_the_others_stay(tiny_net, tmp_path, family, caplog):
    broken = [MadeVideo(video_id=k, num_frames=4, fails_at=2 if k == 2 else None) for k in (1, 2)]
    metrics = evaluate(made_dataset(family, broken), tiny_net, tmp_path)
    error = 'ValueError: video_2/00002.jpg is no image.'
    assert metrics['failures'] == [
        {'video': 'video_2', 'mode': mode, 'error': error} for mode in MODES
    ]
    assert 'video_2' in caplog.text
    files = [name for name in result_files(tmp_path) if '/2/' in name or 'video_2' in name]
    assert files == []
    assert not list((tmp_path / 'parts').rglob('*.unfinished'))
    if family == 'ytvis':
        results = json.loads((tmp_path / 'published/results.json').read_text())
        assert {result['video_id'] for result in results} == {1}


def test_one_mode_may_fail_alone(tiny_net, tmp_path):
    """Class logits that are NaN fail the published mode; the stream ignores them."""
    with torch.no_grad():
        tiny_net.class_head.bias[0] = torch.nan
    metrics = evaluate(made_dataset('ytvis', videos(1)), tiny_net, tmp_path)
    [failure] = metrics['failures']
    assert (failure['video'], failure['mode']) == ('video_1', 'published')
    assert 'Use another precision' in failure['error']
    assert json.loads((tmp_path / 'live/results.json').read_text()) == []


def test_reading_ends_once_all_modes_have_failed(tiny_net, tmp_path, steps):
    with torch.no_grad():
        tiny_net.class_head.bias[0] = torch.nan
    metrics = evaluate(made_dataset('ytvis', videos(1)), tiny_net, tmp_path, modes=('published',))
    assert len(metrics['failures']) == len(steps) == 1


def test_a_video_without_images_fails_in_both_modes(tiny_net, tmp_path):
    metrics = evaluate(made_dataset('vspw', [MadeVideo(num_frames=0)]), tiny_net, tmp_path)
    assert [failure['mode'] for failure in metrics['failures']] == list(MODES)
    assert all('none of its images came' in each['error'] for each in metrics['failures'])


def test_a_failure_is_tried_again_and_what_is_finished_is_not(tiny_net, tmp_path, steps):
    broken = videos()
    broken[1].fails_at = 3
    dataset = made_dataset('ytvis', broken)
    assert len(evaluate(dataset, tiny_net, tmp_path)['failures']) == 2
    assert len(steps) == 4 + 3 + 4
    broken[1].fails_at = None
    metrics = evaluate(dataset, tiny_net, tmp_path, resume=True)
    assert len(steps) == 4 + 3 + 4 + 4
    assert metrics['failures'] == []
    assert metrics['run']['num_resumed'] == 2
    whole = tmp_path / 'whole'
    evaluate(dataset, tiny_net, whole)
    assert result_files(tmp_path) == result_files(whole)


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_what_a_killed_run_left_behind_does_no_harm(tiny_net, tmp_path, family):
    dataset = made_dataset(family, videos())
    evaluate(dataset, tiny_net, tmp_path / 'whole')
    out = tmp_path / 'killed'
    evaluate(dataset, tiny_net, out)
    # Killed after the results of video 2 came into place and before its mark.
    (out / 'parts/live/00001.json').unlink()
    (out / 'parts/published/00002.json').unlink()
    work = out / 'parts/published/00002.unfinished'
    work.mkdir()
    (work / '00000.png').write_bytes(b'half')
    (out / 'metrics.json').unlink()
    metrics = evaluate(dataset, tiny_net, out, resume=True)
    assert metrics['run']['num_resumed'] == 1
    assert result_files(out) == result_files(tmp_path / 'whole')


class AtOnce(Executor):
    """Does what is submitted before it returns, in the caller's thread."""

    def __init__(self, *_):
        pass

    def submit(self, work, /, *args):
        done = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_reading_and_writing_in_threads_gives_the_same_files(
    tiny_net, tmp_path, family, monkeypatch
):
    """As one thread that does one thing after the other, even when Ctrl-C breaks it off."""
    broken = [MadeVideo(video_id=k, seed=k, fails_at=4 if k == 2 else None) for k in (1, 2, 3)]
    dataset = made_dataset(family, broken)
    with monkeypatch.context() as patch:
        patch.setattr(overlap, 'ThreadPoolExecutor', AtOnce)
        alone = evaluate(dataset, tiny_net, tmp_path / 'alone')

    num_steps = 0

    def break_off(*_):
        nonlocal num_steps
        num_steps += 1
        if num_steps == 6 + 4 + 3:  # within the third video
            raise KeyboardInterrupt

    handle = tiny_net.class_head.register_forward_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        evaluate(dataset, tiny_net, tmp_path / 'threads')
    handle.remove()
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(('read frames', 'write results'))
    ]
    resumed = evaluate(dataset, tiny_net, tmp_path / 'threads', resume=True)
    assert resumed['failures'] == alone['failures'] != []
    assert result_files(tmp_path / 'threads') == result_files(tmp_path / 'alone')


def test_frames_per_second_count_what_this_run_predicted(tiny_net, tmp_path):
    dataset = made_dataset('ytvis', videos())
    evaluate(dataset, tiny_net, tmp_path, limit=1)
    metrics = evaluate(dataset, tiny_net, tmp_path, resume=True)
    speed = metrics['speed']
    assert speed['frames'] == 4 + 4
    assert speed['whole_fps'] == pytest.approx(8 / speed['seconds'], rel=0.01)
    network_ms = metrics['timing_ms']['network']['mean']
    assert speed['network_fps'] == pytest.approx(1e3 / network_ms, rel=0.01)
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    assert 'speed' not in evaluate(dataset, tiny_net, tmp_path, resume=True)


def test_results_are_never_overwritten_in_silence(tiny_net, tmp_path, steps):
    dataset = made_dataset('ytvis', videos(1))
    evaluate(dataset, tiny_net, tmp_path)
    before = len(steps)
    with pytest.raises(ValueError, match='holds results already .* --resume, or name another'):
        evaluate(dataset, tiny_net, tmp_path)
    assert len(steps) == before


def test_two_runs_do_not_work_in_one_folder(tiny_net, tmp_path, steps):
    dataset = made_dataset('ytvis', videos(1))
    evaluate(dataset, tiny_net, tmp_path / 'out')
    before = len(steps)
    other = RunFolder(tmp_path / 'out', FAMILIES['ytvis'])
    other.start(json.loads((tmp_path / 'out/run.json').read_text()), resume=True)
    with pytest.raises(ValueError, match='Another run is at work in .*out'):
        evaluate(dataset, tiny_net, tmp_path / 'out', resume=True)
    other.close()
    assert evaluate(dataset, tiny_net, tmp_path / 'out', resume=True)['run']['num_resumed'] == 1
    assert len(steps) == before


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'modes': ('live',)}, 'modes was'),
        ({'settings': {'gap_s': 3.0}}, r'settings was {} and is {"gap_s": 3.0}'),
    ],
)
def test_a_resumed_run_must_ask_for_the_same(tiny_net, tmp_path, changes, named):
    dataset = made_dataset('ytvis', videos())
    evaluate(dataset, tiny_net, tmp_path)
    with pytest.raises(ValueError, match=named):
        evaluate(dataset, tiny_net, tmp_path, resume=True, **changes)


def test_other_weights_and_other_data_are_another_run(tiny_net, tmp_path):
    dataset = made_dataset('ytvis', videos())
    evaluate(dataset, tiny_net, tmp_path)
    with pytest.raises(ValueError, match='dataset was "made" and is "other"'):
        evaluate(replace(dataset, name='other'), tiny_net, tmp_path, resume=True)
    with pytest.raises(ValueError, match='run: videos was'):
        evaluate(made_dataset('ytvis', videos(4)), tiny_net, tmp_path, resume=True)
    with torch.no_grad():
        tiny_net.mask_head[4].bias[3] += 1e-6
    with pytest.raises(ValueError, match='run: weights was'):
        evaluate(dataset, tiny_net, tmp_path, resume=True)


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_sample_goes_on_to_all_videos_and_back(tiny_net, tmp_path, family, steps):
    dataset = made_dataset(family, videos())
    evaluate(dataset, tiny_net, tmp_path / 'whole')
    evaluate(dataset, tiny_net, tmp_path / 'grown', limit=1)
    steps.clear()
    metrics = evaluate(dataset, tiny_net, tmp_path / 'grown', resume=True)
    assert metrics['run']['num_resumed'] == 1
    assert len(steps) == 4 + 4  # of the two videos that were left
    assert result_files(tmp_path / 'grown') == result_files(tmp_path / 'whole')
    again = evaluate(dataset, tiny_net, tmp_path / 'grown', limit=1, resume=True)
    assert (again['run']['num_videos'], again['run']['limit']) == (1, 1)


def test_limit_takes_the_first_videos(tiny_net, tmp_path):
    metrics = evaluate(made_dataset('vspw', videos()), tiny_net, tmp_path, limit=2)
    assert metrics['run']['num_videos'] == 2
    assert sorted(path.name for path in (tmp_path / 'live').iterdir()) == ['video_1', 'video_2']


@pytest.mark.parametrize(
    ('family', 'settings', 'message'),
    [
        ('ytvis', {'gap': 1}, 'Unknown settings: gap'),
        ('ytvis', {'gap_s': -1}, 'Expected gap_s from 0'),
        ('vspw', {'class_filter': ('sky',)}, 'leave class_filter empty'),
    ],
)
def test_wrong_settings_end_before_any_work(tiny_net, tmp_path, family, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(made_dataset(family, videos()), tiny_net, tmp_path / 'out', settings=settings)
    assert not (tmp_path / 'out').exists()


def test_a_share_that_is_not_there_is_named(tiny_net, tmp_path):
    """A process that wrote to a folder of another machine leaves results missing."""
    dataset = made_dataset('ytvis', videos())

    class Alone(Shard):
        def first_does(self, work):
            return work()

        def all_do(self, work):
            return work()

    with pytest.raises(ValueError, match=r'2 results .*video_2 \(published\), video_2 \(live\)'):
        evaluate(dataset, tiny_net, tmp_path, shard=Alone(0, 2))
    evaluate(dataset, tiny_net, tmp_path, resume=True)
    evaluate(dataset, tiny_net, tmp_path / 'whole')
    assert result_files(tmp_path) == result_files(tmp_path / 'whole')


def test_stages_are_timed(tiny_net, tmp_path):
    metrics = evaluate(made_dataset('ytvis', videos()), tiny_net, tmp_path)
    assert set(metrics['timing_ms']) == {
        'read', 'wait', 'prepare', 'network', 'live', 'published', 'total'
    }  # fmt: skip
    for figures in metrics['timing_ms'].values():
        assert set(figures) == {'p50', 'mean'}
        assert min(figures.values()) > 0
    assert metrics['run']['peak_memory_mb'] > 10
    alone = evaluate(
        made_dataset('ytvis', videos()), tiny_net, tmp_path / 'alone', modes=('published',)
    )
    assert set(alone['timing_ms']) == {'read', 'wait', 'prepare', 'network', 'published'}


def scripted(script, family, out, names=SCRIPT_NAMES, mode='live', **settings):
    """Write the results of a script of objects; those of instances are returned."""
    net = ScriptedNet([make_logits(objects) for objects in script])
    video = MadeVideo(
        num_frames=len(script),
        size=IMAGE.shape[:2],
        stamps_ns=[t * STEP_NS for t in range(len(script))],
    )
    dataset = made_dataset(family, [video], names)
    evaluate(dataset, net, out, modes=(mode,), settings={'confirm_frames': 1, **settings})
    if family != 'ytvis':
        return None
    return json.loads((out / mode / 'results.json').read_text())


def test_a_live_track_is_one_result(tmp_path):
    first, second = Obj(0, CAT, 4, 4, score=0.9), Obj(1, DOG, 24, 24, score=0.8)
    results = scripted([[first], [first, second], [], [first]], 'ytvis', tmp_path)
    assert [result['category_id'] for result in results] == [10, 11]
    seen = [[mask is not None for mask in result['segmentations']] for result in results]
    assert seen == [[True, True, False, True], [False, True, False, False]]
    assert results[1]['score'] == pytest.approx(0.8, abs=1e-6)
    mask = rle.decode(results[0]['segmentations'][0])
    assert mask[20:44, 20:44].all()
    assert mask.sum() < 40 * 40


def test_the_score_of_a_live_track_is_the_mean_of_what_was_published(tmp_path):
    # The stream averages logits: the four other outputs have 0.1/4, then 0.3/4.
    own, other = (0.9 * 0.7) ** 0.5, (0.025 * 0.075) ** 0.5
    published = (0.9, own / (own + 4 * other))
    results = scripted(
        [[Obj(0, CAT, 4, 4, score=0.9)], [Obj(0, CAT, 4, 4, score=0.7)]], 'ytvis', tmp_path
    )
    assert [result['score'] for result in results] == [pytest.approx(sum(published) / 2, abs=1e-6)]


@pytest.mark.parametrize(
    ('classes', 'category_id'),
    [((0, 0, 1), 10), ((0, 1, 1), 11), ((0, 1), 11), ((1, 0, 0, 1), 11)],
)
def test_the_category_of_a_live_track_is_that_of_most_frames(classes, category_id):
    """At a tie the latest category wins."""
    from videomt_ros.datasets.categories import ClassMap
    from videomt_ros.evaluation.families.instances import LiveInstances
    from videomt_ros.structures import Segment, Segments, TrackState

    class Kept:
        def add(self, index, key, mask):
            pass

        def finish(self, tracks):
            return tracks

    live = LiveInstances(Kept(), ClassMap((10, 11)))
    for t, class_id in enumerate(classes):
        segment = Segment(
            7, class_id, 'x', True, 0.5, TrackState.CONFIRMED, t + 1, t, (0, 0, 2, 2), 4
        )
        live.add(t, Segments(t, np.full((2, 2), 7, np.uint16), (segment,), 2))
    [track] = live.finish()
    assert track.category_id == category_id


def test_lost_tracks_have_no_masks(tmp_path):
    item = Obj(0, CAT, 4, 4)
    results = scripted([[item], [], [item]], 'ytvis', tmp_path, track_states=('confirmed', 'lost'))
    assert [mask is None for mask in results[0]['segmentations']] == [False, True, False]


def test_classes_that_the_data_set_lacks_are_left_out(tmp_path):
    script = [[Obj(0, CAT, 4, 4), Obj(1, DOG, 24, 24)]]
    assert [r['category_id'] for r in scripted(script, 'ytvis', tmp_path / 'a', ('dog',))] == [10]
    scripted(script, 'vipseg', tmp_path / 'b', ('dog',))
    ids = read_ids(tmp_path / 'b/live/pan_pred/1/00000.png', IMAGE.shape[:2])
    assert not ids[20:44, 20:44].any()
    assert ids[100:124, 100:124].all()


def test_live_ids_and_categories_are_those_that_were_published(tmp_path):
    script = [[Obj(0, CAT, 4, 4), Obj(1, SKY, 24, 0, 16, 48)]] * 2
    scripted(script, 'vipseg', tmp_path)
    frames = json.loads((tmp_path / 'live/pred.json').read_text())['annotations'][0]['annotations']
    for t, frame in enumerate(frames):
        ids = read_ids(tmp_path / f'live/pan_pred/1/{t:05d}.png', IMAGE.shape[:2])
        segments = {entry['category_id']: entry['id'] for entry in frame['segments_info']}
        assert set(segments) == {10, 12}
        assert ids[32, 32] == segments[10]
        assert ids[130, 90] == segments[12]


def test_published_stuff_of_one_class_is_one_segment(tmp_path):
    """Two objects of one class are two segments."""
    script = [[
        Obj(0, SKY, 0, 0), Obj(1, CAT, 20, 0), Obj(2, SKY, 0, 30), Obj(3, CAT, 20, 30)
    ]]  # fmt: skip
    scripted(script, 'vipseg', tmp_path, mode='published')
    ids = read_ids(tmp_path / 'published/pan_pred/1/00000.png', IMAGE.shape[:2])
    sky, other_sky = ids[16, 16], ids[16, 136]
    cat, other_cat = ids[96, 16], ids[96, 136]
    assert sky == other_sky
    assert len({sky, cat, other_cat, 0}) == 4
    content = json.loads((tmp_path / 'published/pred.json').read_text())
    [frame] = content['annotations'][0]['annotations']
    assert sorted(entry['category_id'] for entry in frame['segments_info']) == [10, 10, 12]


def test_pixels_without_a_class_take_that_of_their_neighbours(tmp_path):
    """VSPW has no value for them; `dog` is no category of this data set, and lies in `sky`."""
    script = [[Obj(0, SKY, 0, 0, 40, 48), Obj(1, DOG, 10, 10, 4, 4, logit=30.0)]]
    scripted(script, 'vspw', tmp_path, ('cat', 'x', 'sky'))
    mask = read_mask(tmp_path / 'live/video_1/00000.png', IMAGE.shape[:2])
    assert set(np.unique(mask)) <= {10, 12}
    assert mask[44, 44] == 12


def test_an_engine_that_cannot_run_here_ends_the_evaluation(tiny_net, tmp_path, monkeypatch):
    def fail(*_):
        raise EngineError('No compiler. Choose the engine eager.')

    monkeypatch.setattr(tiny_net, 'step', fail)
    with pytest.raises(EngineError, match='Choose the engine eager'):
        evaluate(made_dataset('ytvis', videos()), tiny_net, tmp_path)
