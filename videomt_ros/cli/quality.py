"""`videomt quality`: measure a model on synthetic scenes that no training has seen."""

from __future__ import annotations

import argparse

HELP = 'measure the demo model, or one trained like it, on synthetic scenes'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--model', default='demo', help='whatever load_model takes')
    parser.add_argument('--scenes', type=int, default=20, help='how many scenes, seeds 0, 1, ...')
    parser.add_argument('--frames', type=int, default=60, help='frames of each scene')


def main(args: argparse.Namespace) -> int:
    """Measure, and print one figure a line."""
    from videomt_ros.datasets.synthetic.scene import CLASS_NAMES
    from videomt_ros.evaluation.scenes import measure_scenes
    from videomt_ros.evaluation.tracking import VISIBLE_SHARE
    from videomt_ros.model import load_model

    if args.scenes < 1 or args.frames < 1:
        raise ValueError('Expected 1 or more scenes of 1 or more frames.')
    net = load_model(args.model)
    if net.config.class_names != CLASS_NAMES:
        raise ValueError(
            f'Expected a model of the classes {", ".join(CLASS_NAMES)}; {args.model} knows '
            f'{", ".join(net.config.class_names[:6])} ... Train one with config/train_demo.yaml.'
        )
    scores = measure_scenes(net, range(args.scenes), args.frames)
    print(f'{args.scenes} scenes of {args.frames} frames, {scores.num_visible} objects in view')
    print(f'(objects below {VISIBLE_SHARE:.1%} of the image are not scored)')
    print(f'mean IoU                 {scores.mean_iou:.3f}')
    print(f'found (IoU >= 0.5)       {scores.found:.3f}')
    print(f'classes right, of found  {scores.classes_right:.3f}')
    print(f'switches per 100 frames  {scores.switches_per_100_frames:.2f}')
    return 0
