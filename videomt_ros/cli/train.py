"""`videomt train`: train a network from a run file."""

from __future__ import annotations

import argparse
import logging

HELP = 'train a network from a run file in config/'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--config', required=True, help='run file, such as config/train_demo.yaml')
    parser.add_argument(
        '--resume', action='store_true', help='go on from the last checkpoint of the run'
    )
    parser.add_argument(
        'overrides',
        nargs='*',
        metavar='key=value',
        help='settings that replace those of the run file, such as out=out/mine device=cuda',
    )


def main(args: argparse.Namespace) -> int:
    """Run the training; prints where the weights are."""
    from videomt_ros.training.settings import load_settings
    from videomt_ros.training.trainer import Trainer

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    path = Trainer(load_settings(args.config, args.overrides)).run(resume=args.resume)
    print(path)
    return 0
