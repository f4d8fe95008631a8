"""The port of VidEoMT in `transformers`, with the same random weights as our network.

The port (class VideomtForUniversalSegmentation, transformers 5.8 or later) squeezes each image to
a square and keeps no state between calls. It is run as its documentation shows: video processor,
network, and the video processor again.

Letters: Q queries, C channels, K classes, h w mask grid, S samples of all queries.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomt_ros.inference.grid_masks import ious, pack_masks
from videomt_ros.inference.preprocess import Preprocessor
from videomt_ros.model import VideoNetwork, load_model
from videomt_ros.model.config import VIT_SIZES

SIZE_NAMES = {'S': 'small', 'B': 'base', 'L': 'large'}
TINY = {
    'hidden_size': 32,
    'num_hidden_layers': 4,
    'num_attention_heads': 2,
    'num_blocks': 2,
    'num_queries': 24,
}
"""Sizes of a network that only tries out a measurement."""
DISTINCT_IOU = 0.37
"""IoU that queries of different segments stay below, or the stream would take two for one."""
UPDATER_SCALE = 0.1
"""Scale of the query updater, which keeps propagated queries near the learned ones, so that one
linear class head can tell the queries apart in every frame."""
CERTAIN = 20.0
"""Logit of a class that is certain, where the others are 0."""
SETTLING_FRAMES = 3
"""Number of frames of a video to which the class head is fitted."""


def port_sizes(size: str) -> dict[str, int]:
    """Return the sizes of ViT-S, B, L or tiny in the names of the port's configuration."""
    if size == 'tiny':
        return TINY
    sizes = VIT_SIZES[SIZE_NAMES[size]]
    return {
        'hidden_size': sizes['embed_dim'],
        'num_hidden_layers': sizes['depth'],
        'num_attention_heads': sizes['num_heads'],
        'num_blocks': 4 if sizes['depth'] == 24 else 3,
    }


def build_pair(
    sizes: dict[str, int], image_size: int, num_classes: int, seed: int = 0
) -> tuple[VideoNetwork, Any]:
    """Build our network and the port with the same random weights, on the CPU in float32.

    Args:
        sizes: fields of the port's configuration; see `port_sizes`.
        image_size: side of the square for which the port is built.
        num_classes: number of classes.
        seed: seed of the weights.

    Raises:
        ValueError: this transformers has no VidEoMT, or the square is not one of whole patches.
    """
    import transformers

    try:
        config_class = transformers.VideomtConfig
        port_class = transformers.VideomtForUniversalSegmentation
    except AttributeError as error:
        raise ValueError(
            'Expected transformers 5.8 or later, which has VidEoMT, '
            f'got {transformers.__version__}.'
        ) from error
    names = {k: f'class {k}' for k in range(num_classes)}
    config = config_class(**sizes, image_size=image_size, id2label=names)
    if image_size % config.patch_size:
        raise ValueError(
            f'Expected an input whose side is a multiple of {config.patch_size}, the side of a '
            f'patch, got {image_size}.'
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        port = port_class(config).eval()
    with torch.no_grad():
        port.query_updater.weight.mul_(UPDATER_SCALE)
    logging.getLogger('transformers').setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        port.save_pretrained(folder)
        # The folder does not hold these two; `frame.compare` replaces the size.
        net = load_model(folder, task='instance', test_size=image_size)
    return net, port


@torch.inference_mode()
def fit_class_head(
    net: VideoNetwork, port: Any, square: Tensor, images: Sequence[NDArray[np.uint8]], num: int
) -> None:
    """Fit the class heads so that the same `num` queries are segments in every frame.

    Random weights give all queries and classes about the same probability, and all queries about
    the same mask, so that no segment would exceed the score threshold. The last bias of the mask
    head is set so that the masks differ, and the class head is fitted by least squares to the
    query tokens of a still square and of the first frames of a video.

    Args:
        net: our network in float32.
        port: the same weights, on the same device; None: there is no port.
        square: an input, (1, 3, side, side) for the port.
        images: frames of a video, each (H, W, 3) uint8.
        num: number of queries that exceed the score threshold; their classes differ while there
            are enough classes.

    Raises:
        ValueError: fewer than `num` queries have masks that differ.
    """
    weight = net.class_head.weight
    prepare = Preprocessor(net.config, weight.device, weight.dtype)
    centres: list[Tensor] = []
    samples: list[Tensor] = []

    def keep_centre(_: nn.Module, __: object, embeddings: Tensor) -> None:
        centres.append(embeddings.mean((0, 1)))

    def keep_tokens(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        samples.append(inputs[0][0])

    with net.mask_head.register_forward_hook(keep_centre):
        net.step(square, net.initial_state(1))
    last_layers: list[Any] = [net.mask_head[-1]]
    class_heads: list[Any] = [net.class_head]
    if port is not None:
        last_layers.append(port.mask_head.fc3)
        class_heads.append(port.class_predictor)
    for layer in last_layers:
        layer.bias.sub_(centres[0])

    with net.class_head.register_forward_pre_hook(keep_tokens):
        net.step(square, net.initial_state(1))
        state = net.initial_state(1)
        for n in range(SETTLING_FRAMES):
            outputs, state = net.step(prepare(images[n % len(images)])[0], state)
    chosen = distinct_queries((outputs.mask_logits[0] > 0).cpu().numpy(), num)
    targets = torch.zeros(net.config.num_queries, net.config.num_classes + 1)
    targets[:, -1] = CERTAIN
    for n, query in enumerate(chosen):
        targets[query, -1] = 0.0
        targets[query, n % net.config.num_classes] = CERTAIN
    head = fit_linear(torch.stack(samples).cpu(), targets)
    for linear in class_heads:
        linear.load_state_dict(head)


def fit_linear(samples: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Fit weight and bias that map samples (S, Q, C) to targets (Q, K + 1), by least squares."""
    tokens = torch.nn.functional.pad(samples.flatten(0, 1).double(), (0, 1), value=1.0)
    # A ridge of 1 is little beside S * Q and keeps the weights small enough for half precision.
    ridge = torch.eye(tokens.shape[1], dtype=torch.float64)
    answers = tokens.T @ targets.double().repeat(len(samples), 1)
    solution = torch.linalg.solve(tokens.T @ tokens + ridge, answers)  # C + 1, K + 1
    return {'weight': solution[:-1].T, 'bias': solution[-1]}


def distinct_queries(masks: NDArray[np.bool_], num: int) -> list[int]:
    """Return the first `num` queries whose masks (Q, h, w) are neither empty nor nearly the same.

    Raises:
        ValueError: there are fewer.
    """
    overlaps = ious(pack_masks(masks), pack_masks(masks))
    chosen: list[int] = []
    for query in np.flatnonzero(masks.any((1, 2))):
        if len(chosen) < num and not (overlaps[query, chosen] >= DISTINCT_IOU).any():
            chosen.append(int(query))
    if len(chosen) < num:
        raise ValueError(
            f'Expected {num} queries with masks of their own, these weights have {len(chosen)}. '
            'Ask for fewer segments.'
        )
    return chosen


class Port:
    """The port as a function of one image at a time."""

    def __init__(self, port: Any, image_size: int) -> None:
        from transformers import VideomtVideoProcessor

        self.network = port
        self.processor = VideomtVideoProcessor(size={'height': image_size, 'width': image_size})

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Squeeze an image (H, W, 3) uint8 to the network's input (1, 3, side, side)."""
        weight = self.network.class_predictor.weight
        # One clip of one frame. The processor resizes on the device it is given.
        batch = self.processor(videos=[image[None]], return_tensors='pt', device=weight.device)
        return batch['pixel_values_videos'][0].to(weight.dtype)

    def step(self, frames: Tensor) -> Any:
        """Run the network on frames (B, 3, side, side), each the first of its video."""
        return self.network(pixel_values_videos=frames[:, None])

    def finish(
        self, outputs: Any, image_size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
        """Draw the segments on the host.

        Returns:
            Segment id of each pixel (H, W), -1 for none, and a record of each segment.
        """
        result = self.processor.post_process_instance_segmentation(outputs, [image_size])[0]
        return result['segmentation'].cpu().numpy(), result['segments_info']
