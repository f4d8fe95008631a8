"""`videomt benchmark`: measure speed on this machine.

`benchmark model` times the network and a whole frame, beside the port in `transformers`;
`benchmark stream` times the stages of a frame for several sizes of images, without ROS;
`benchmark cameras` times rounds of several cameras that share one network;
`benchmark shared` times several decoders on one encoder, beside several networks;
`benchmark score` times the scoring of result files, beside a plain loop, and needs no torch;
`benchmark train` times the parts of a training step; `benchmark gpu` times networks of all sizes
on a GPU, in all ways to run them; `benchmark node` times the running node and alone needs ROS.
`benchmark tracker` measures scores, not speed: what each constant of the tracker is worth.
"""

from __future__ import annotations

import argparse

from videomt_ros.cli.benchmark_cameras import add_cameras
from videomt_ros.cli.benchmark_gpu import add_gpu
from videomt_ros.cli.benchmark_model import add_model
from videomt_ros.cli.benchmark_node import add_node
from videomt_ros.cli.benchmark_score import add_score
from videomt_ros.cli.benchmark_shared import add_shared
from videomt_ros.cli.benchmark_stream import add_stream
from videomt_ros.cli.benchmark_tracker import add_tracker
from videomt_ros.cli.benchmark_train import add_train

HELP = 'measure speed on this machine, and what the constants of the tracker are worth'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be measured, and the options of each."""
    choices = parser.add_subparsers(metavar='what', required=True)
    for add in (
        add_model,
        add_stream,
        add_cameras,
        add_shared,
        add_score,
        add_train,
        add_gpu,
        add_node,
        add_tracker,
    ):
        add(choices)


def main(args: argparse.Namespace) -> int:
    """Run the measurement that was chosen.

    Raises:
        OSError: the folder of the file for the figures cannot be made, which is told before the
            measurement.
    """
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    return args.run(args)
