"""Panoptic and semantic metrics as one would first write them down: dictionaries and loops.

Pixel by pixel and window by window; slow, and nothing is shared with the package.

A panoptic video is a list of frames (true_ids, true_segments, pred_ids, pred_segments), a semantic
one of (true_mask, pred_mask).
"""

from __future__ import annotations

import math

import numpy as np
import pytest


def pixel_pairs(true_image, pred_image):
    height, width = true_image.shape
    for y in range(height):
        for x in range(width):
            yield int(true_image[y, x]), int(pred_image[y, x])


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def plain_vpq(videos, is_thing):
    """Compute the figures under the names of VpqScores.figures()."""
    figures = {}
    by_k = {}
    for k in (1, 2, 4, 6, 8):
        stats = {category: {'iou': 0.0, 'tp': 0, 'fp': 0, 'fn': 0} for category in is_thing}
        for video in videos:
            start = 0
            while start + k <= len(video):
                count_window(video[start : start + k], stats)
                start += 1
        quality = {}
        for category, stat in stats.items():
            if stat['tp'] + stat['fp'] + stat['fn'] > 0:
                quality[category] = stat['iou'] / (
                    stat['tp'] + 0.5 * stat['fp'] + 0.5 * stat['fn']
                )
        by_k[k] = {
            '': mean(quality.values()),
            '_th': mean(q for category, q in quality.items() if is_thing[category]),
            '_st': mean(q for category, q in quality.items() if not is_thing[category]),
        }
        for suffix, value in by_k[k].items():
            figures[f'VPQ{k}{suffix}'] = value
    for name, windows in (('VPQ', (1, 2, 4, 6)), ('VPQ_five', (1, 2, 4, 6, 8))):
        for suffix in ('', '_th', '_st'):
            values = [by_k[k][suffix] for k in windows]
            figures[name + suffix] = None if None in values else mean(values)
    return figures


def plain_pq(videos, is_thing):
    """Compute the figures under the names of VpqScores.frame_figures()."""
    stats = {category: {'iou': 0.0, 'tp': 0, 'fp': 0, 'fn': 0} for category in is_thing}
    for video in videos:
        for one in video:
            count_window([one], stats)
    figures = {}
    for suffix, kinds in (('', (True, False)), ('_th', (True,)), ('_st', (False,))):
        pq, sq, rq = [], [], []
        for category, stat in stats.items():
            iou, tp, fp, fn = (stat[key] for key in ('iou', 'tp', 'fp', 'fn'))
            if is_thing[category] in kinds and tp + fp + fn > 0:
                pq.append(iou / (tp + 0.5 * fp + 0.5 * fn))
                sq.append(iou / tp if tp else 0.0)
                rq.append(tp / (tp + 0.5 * fp + 0.5 * fn))
        figures |= {f'PQ{suffix}': mean(pq), f'SQ{suffix}': mean(sq), f'RQ{suffix}': mean(rq)}
    return figures


def count_window(frames, stats):
    true, pred, shared = {}, {}, {}
    for true_ids, true_segments, pred_ids, pred_segments in frames:
        for segment in true_segments:
            if segment['id'] not in true:
                true[segment['id']] = {
                    'category': segment['category_id'], 'crowd': segment['iscrowd'], 'area': 0
                }  # fmt: skip
            true[segment['id']]['area'] += segment['area']
        for segment in pred_segments:
            if segment['id'] not in pred:
                pred[segment['id']] = {'category': segment['category_id'], 'area': 0}
        for pair in pixel_pairs(true_ids, pred_ids):
            shared[pair] = shared.get(pair, 0) + 1
            if pair[1] != 0:
                pred[pair[1]]['area'] += 1

    true_matched, pred_matched = set(), set()
    for true_id, t in true.items():
        for pred_id, p in pred.items():
            inter = shared.get((true_id, pred_id), 0)
            if inter == 0 or t['crowd'] or t['category'] != p['category']:
                continue
            union = p['area'] + t['area'] - inter - shared.get((0, pred_id), 0)
            if inter / union > 0.5:
                stats[t['category']]['tp'] += 1
                stats[t['category']]['iou'] += inter / union
                true_matched.add(true_id)
                pred_matched.add(pred_id)

    crowd_of_category = {}
    for true_id, t in true.items():
        if t['crowd']:
            crowd_of_category[t['category']] = true_id
        elif true_id not in true_matched:
            stats[t['category']]['fn'] += 1
    for pred_id, p in pred.items():
        if pred_id in pred_matched:
            continue
        excused = shared.get((0, pred_id), 0)
        if p['category'] in crowd_of_category:
            excused += shared.get((crowd_of_category[p['category']], pred_id), 0)
        if not excused / p['area'] > 0.5:
            stats[p['category']]['fp'] += 1


def plain_stq(videos, is_thing):
    void = 'void'
    matrix = {}
    total_quality, num_true_tracks = 0.0, 0
    for video in videos:
        true_order, pred_order = [], []
        for _, true_segments, _, pred_segments in video:
            for order, segments in ((true_order, true_segments), (pred_order, pred_segments)):
                for segment in segments:
                    if segment['id'] not in order:
                        order.append(segment['id'])
        true_tracks, pred_tracks, both = {}, {}, {}
        for true_ids, true_segments, pred_ids, pred_segments in video:
            true_category = {segment['id']: segment['category_id'] for segment in true_segments}
            pred_category = {segment['id']: segment['category_id'] for segment in pred_segments}
            for true_id, pred_id in pixel_pairs(true_ids, pred_ids):
                t, p = true_category.get(true_id, void), pred_category.get(pred_id, void)
                if t != void:
                    matrix[t, p] = matrix.get((t, p), 0) + 1
                true_thing = t != void and is_thing[t]
                pred_thing = p != void and is_thing[p]
                if true_thing and true_id == true_order[0]:
                    continue
                g, q = (t, true_id), (p, pred_id)
                if true_thing:
                    true_tracks[g] = true_tracks.get(g, 0) + 1
                if pred_thing:
                    pred_tracks[q] = pred_tracks.get(q, 0) + 1
                if true_thing and pred_thing:
                    both[g, q] = both.get((g, q), 0) + 1
        for g, true_size in true_tracks.items():
            inner = 0.0
            for q, pred_size in pred_tracks.items():
                tpa = both.get((g, q), 0)
                inner += tpa * tpa / (true_size + pred_size - tpa)
            total_quality += inner / true_size
            num_true_tracks += 1

    ious = []
    for category in [*is_thing, void]:
        tp = matrix.get((category, category), 0)
        of_true = sum(count for (t, _), count in matrix.items() if t == category)
        of_pred = sum(count for (_, p), count in matrix.items() if p == category)
        if of_true + of_pred - tp > 0:
            ious.append(tp / (of_true + of_pred - tp))
    sq = mean(ious)
    aq = total_quality / num_true_tracks if num_true_tracks else None
    stq = None if sq is None or aq is None else math.sqrt(sq * aq)
    return {'STQ': stq, 'AQ': aq, 'SQ': sq}


def plain_semantic(videos, num_classes):
    tp, of_true, of_pred = [0] * num_classes, [0] * num_classes, [0] * num_classes
    for video in videos:
        for true_mask, pred_mask in video:
            for value, predicted in pixel_pairs(true_mask, pred_mask):
                if 1 <= value <= num_classes:
                    of_true[value - 1] += 1
                    of_pred[predicted] += 1
                    tp[value - 1] += value - 1 == predicted
    iou = {c: tp[c] / (of_true[c] + of_pred[c] - tp[c]) for c in range(num_classes) if of_true[c]}
    total = sum(of_true)
    shares = {n: [share for video in videos for share in window_shares(video, n)] for n in (8, 16)}
    return {
        'mIoU': mean(iou.values()),
        'FWIoU': sum(of_true[c] / total * iou[c] for c in iou) if total else None,
        'accuracy': sum(tp) / total if total else None,
        'mVC8': mean(shares[8]),
        'mVC16': mean(shares[16]),
        'mVC16_as_printed': mean(shares[8] + shares[16]),
    }


def window_shares(video, n):
    """Compute VC of the windows of n frames, except the last and those without a steady truth."""
    for start in range(len(video) - n):
        window = video[start : start + n]
        height, width = window[0][0].shape
        num_steady = num_both = 0
        for y in range(height):
            for x in range(width):
                if len({int(true_mask[y, x]) for true_mask, _ in window}) == 1:
                    num_steady += 1
                    num_both += len({int(pred_mask[y, x]) for _, pred_mask in window}) == 1
        if num_steady:
            yield num_both / num_steady


def random_panoptic_videos(seed):
    """Draw 1..3 videos of 1..10 frames, and the classes.

    Predictions are noisy copies of the truth, so that IoUs lie around 1/2. With void on both
    sides, unlisted true ids, crowds, ids that change their class, and ids only predicted.
    """
    rng = np.random.default_rng(seed)
    is_thing = {int(category): bool(rng.integers(2)) for category in rng.permutation(9)[:4]}
    categories = list(is_thing)
    videos = []
    for _ in range(rng.integers(1, 4)):
        height, width, num_ids = rng.integers(2, 6), rng.integers(2, 7), rng.integers(1, 6)
        ids = rng.choice(2**24 - 1, size=num_ids, replace=False).astype(np.uint32) + 1
        category_of = {int(number): int(rng.choice(categories)) for number in ids}
        crowds = {int(number) for number in ids if rng.random() < 0.15}
        unlisted = {int(number) for number in ids if rng.random() < 0.1}
        true_ids = rng.choice(np.append(ids, 0), size=(height, width)).astype(np.uint32)
        stranger = np.uint32(rng.integers(1, 2**24))
        shift = np.uint32(rng.integers(0, 2))  # whether predictions are numbered like the truth
        video = []
        for _ in range(rng.integers(1, 11)):
            is_new = rng.random((height, width)) < 0.15
            true_ids = np.where(is_new, rng.choice(np.append(ids, 0), (height, width)), true_ids)
            if rng.random() < 0.2:
                changed = int(rng.choice(ids))
                category_of[changed] = int(rng.choice(categories))
            pred_ids = np.where(true_ids > 0, true_ids ^ shift, 0)
            noise = rng.random((height, width)) < rng.choice([0, 0.2, 0.5])
            pred_ids = np.where(
                noise, rng.choice(np.append(ids ^ shift, [0, stranger]), (height, width)), pred_ids
            ).astype(np.uint32)
            listed = [int(number) for number in rng.permutation(np.unique(true_ids)) if number]
            listed = [number for number in listed if number not in unlisted]
            video.append(
                (
                    true_ids.astype(np.uint32),
                    [
                        {
                            'id': number,
                            'category_id': category_of[number],
                            'iscrowd': int(number in crowds),
                            'area': int((true_ids == number).sum() + rng.choice([0, 0, 1])),
                        }
                        for number in listed
                    ],
                    pred_ids,
                    [
                        {
                            'id': int(number),
                            'category_id': category_of.get(int(number ^ shift), categories[0])
                            if rng.random() < 0.9
                            else int(rng.choice(categories)),
                        }
                        for number in rng.permutation(np.unique(pred_ids))
                        if number
                    ],
                )
            )
        videos.append(video)
    return videos, is_thing


def random_semantic_videos(seed):
    """Draw 1..3 videos of 1..20 small frames that change slowly, and the number of classes."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(1, 6))
    values = np.concatenate([np.arange(num_classes + 1), [num_classes + 1, 254, 255]])
    videos = []
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(1, 4), rng.integers(1, 5)
        true_mask = rng.choice(values, (height, width))
        pred_mask = rng.integers(0, num_classes, (height, width))
        pace = rng.choice([0.02, 0.1, 0.5])
        video = []
        for _ in range(rng.integers(1, 21)):
            is_new = rng.random((height, width)) < pace
            true_mask = np.where(is_new, rng.choice(values, (height, width)), true_mask)
            is_new = rng.random((height, width)) < pace
            pred_mask = np.where(is_new, rng.integers(0, num_classes, (height, width)), pred_mask)
            is_valid = (true_mask > 0) & (true_mask <= num_classes)
            shown = np.where(is_valid, pred_mask, 255 - pred_mask)
            video.append((true_mask.astype(np.uint8), shown.astype(np.uint8)))
        videos.append(video)
    return videos, num_classes


def assert_agrees(kind, plain, seed, method='figures'):
    """Compare the figures of a panoptic metric with those of its plain form, on random videos."""
    videos, is_thing = random_panoptic_videos(seed)
    quality = kind(is_thing)
    for video in videos:
        quality.start_video()
        for one in video:
            quality.update(*one)
    result, expected = getattr(quality.result(), method)(), plain(videos, is_thing)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


def assert_order_does_not_matter(kind, seed):
    """Check that a panoptic metric has the same figures, to the last digit, in another order."""
    videos, is_thing = random_panoptic_videos(seed)
    forward, backward = kind(is_thing), kind(dict(reversed(is_thing.items())))
    for quality, order in ((forward, videos), (backward, videos[::-1])):
        for video in order:
            quality.start_video()
            for one in video:
                quality.update(*one)
    assert forward.result().figures() == backward.result().figures()
