"""`videomt benchmark score`: the case that it scores, and that both ways agree."""

from __future__ import annotations

import json
import subprocess
import sys

from videomt_ros.speed.scoring import (
    compare_scoring,
    count_pairs,
    largest_difference,
    make_case,
)


def test_the_case_for_scoring_is_as_large_as_asked_for():
    case = make_case(num_videos=3, num_results=8, num_objects=2, seed=1, num_frames=4)
    assert [video_id for video_id, _, _ in case] == [1, 2, 3]
    assert [len(truth) for _, truth, _ in case] == [2, 2, 2]
    assert [len(results) for _, _, results in case] == [3, 3, 2]
    assert count_pairs(case) == 2 * 8
    tracks = [track for _, truth, results in case for track in (*truth, *results)]
    assert {len(track.masks) for track in tracks} == {4}
    masks = [mask for track in tracks for mask in track.masks if mask]
    assert {tuple(mask['size']) for mask in masks} == {(720, 1280)}
    # They move, and no two frames are the same.
    assert len({mask['counts'] for mask in masks}) == len(masks) > 40
    assert make_case(3, 8, 2, seed=1, num_frames=4) == case
    assert make_case(3, 8, 2, seed=2, num_frames=4) != case


def test_both_ways_of_scoring_give_the_same_figures():
    comparison = compare_scoring(make_case(6, 40, 3, seed=0, num_frames=5), repeats=2)
    assert comparison.difference < 1e-9
    assert 0 < comparison.figures['AP'] < comparison.figures['AP50'] < 1
    assert comparison.peak_bytes > 0


def test_a_difference_of_figures_is_found():
    assert largest_difference({'AP': 0.5, 'AR1': None}, {'AP': 0.25, 'AR1': None}) == 0.25
    assert largest_difference({'AP': 0.5, 'AR1': None}, {'AP': 0.5, 'AR1': 0.0}) == float('inf')


def test_scoring_is_measured_without_torch(tmp_path):
    path = tmp_path / 'score.json'
    program = f"""
import sys
sys.modules.update(torch=None, transformers=None, rclpy=None)  # importing these now fails
from videomt_ros.cli import main
words = 'benchmark score --videos 2 --results 9 --objects 2 --repeats 2 --json'
sys.exit(main([*words.split(), {str(path)!r}]))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '9 results, 18 pairs' in done.stdout
    assert 'The loop over pairs takes ' in done.stdout
    results = json.loads(path.read_text())['results']
    assert [result['side'] for result in results] == ['videomt_ros', 'pairs']
    assert all(len(result['samples_s']) == 2 for result in results)
