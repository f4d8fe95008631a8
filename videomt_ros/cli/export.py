"""`videomt export`: the network as an ONNX file that is a model by itself."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from videomt_ros.cli.argument_types import count, image_size

HELP = 'write the network as an ONNX file, checked against torch'

DEFAULT_IMAGE = (640, 480)
"""Width and height of the images whose frames are compared, where any size goes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument('--model', required=True, help='model name, checkpoint or hub repository')
    parser.add_argument(
        '--format', choices=('onnx',), default='onnx', help='kind of file; default: onnx'
    )
    parser.add_argument('--out', type=Path, required=True, help='where to, ending in .onnx')
    parser.add_argument(
        '--image-size',
        type=image_size,
        metavar='WIDTHxHEIGHT',
        help="size of the camera's images, such as 1280x720, from which that of the network's "
        'input follows; needed unless the size is dynamic',
    )
    parser.add_argument(
        '--input-size',
        type=count,
        help="short side in pixels to which images are resized; default: the model's test size",
    )
    parser.add_argument(
        '--dynamic',
        nargs='+',
        choices=('batch', 'size'),
        default=[],
        help='take any number of frames at once, or frames of any size; default: one frame of '
        'one size',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'fp16'),
        default='fp32',
        help='number format of weights, frames and outputs; default: fp32',
    )


def main(args: argparse.Namespace) -> int:
    """Export the model, and print how far its outputs are from torch's."""
    if args.out.suffix != '.onnx':
        raise ValueError(f'Expected --out to end in .onnx, got {args.out}.')
    if args.image_size is None and 'size' not in args.dynamic:
        raise ValueError(
            "Expected --image-size with the size of the camera's images, such as 1280x720, or "
            '--dynamic size.'
        )
    for module in ('onnx', 'onnxscript', 'onnxruntime'):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f'No module named {module!r}', name=module)
    from videomt_ros.model.sources import find_source

    find_source(args.model)  # names what is wrong with it before torch is imported

    from videomt_ros.engines.onnx_export import CHECKED_FRAMES, export_onnx
    from videomt_ros.inference.input_size import check_input_size
    from videomt_ros.inference.preprocess import Geometry
    from videomt_ros.model.checkpoint import load_model
    from videomt_ros.model.device import PRECISIONS
    from videomt_ros.resources import package_version

    net = load_model(args.model)
    if args.input_size is not None:
        check_input_size(args.input_size, net.config)
        net = load_model(args.model, test_size=args.input_size)
    width, height = args.image_size or DEFAULT_IMAGE
    size = Geometry.of((height, width), net.config).padded_size
    dtype = PRECISIONS[args.precision]
    differences = export_onnx(net, args.out, size, dtype, args.dynamic, package_version())

    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {args.precision}')
    batch = 'any number of frames' if 'batch' in args.dynamic else 'one frame'
    shape = f'{size[0]} x {size[1]} pixels (height x width), for images of {width} x {height}'
    print(f'takes {batch} of {"any size" if "size" in args.dynamic else shape}')
    print(f'largest differences from torch in float32 over {CHECKED_FRAMES} frames:')
    for name, difference in differences.items():
        print(f'  {name}: {difference}, the largest value')
    print(f'to run it: model {args.out}, engine onnxruntime')
    return 0
