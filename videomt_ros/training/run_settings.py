"""One training run as typed settings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from videomt_ros.datasets.benchmarks import BENCHMARK_NAMES
from videomt_ros.datasets.synthetic.wall import check_hidden_frames
from videomt_ros.model.config import VidEoMTConfig

MAY_CHANGE = (
    'out', 'device', 'devices', 'nodes', 'threads', 'workers', 'accumulate', 'precision',
    'activation_checkpointing', 'compile', 'checkpoint_every', 'keep_checkpoints', 'log_every',
    'validation', 'wandb',
)  # fmt: skip
"""Settings with which a run may be resumed: they say where and how it runs, not what it learns."""

SYNTHETIC = 'synthetic'
"""The data set that is drawn rather than read."""


@dataclass(frozen=True)
class DataSource:
    """One data set of a mixture."""

    dataset: str
    """Its format: ytvis2019, ytvis2021, ytvis2022, ovis, vipseg, vspw, coco, coco_panoptic; or
    synthetic. One's own data has the name of the format it is in."""
    root: str = ''
    """Its folder; synthetic has none."""
    split: str = 'train'
    weight: float = 1.0
    """Share of the clips that come from it, over the sum of all weights."""
    renamed: tuple[tuple[str, str | None], ...] = ()
    """Pairs of a category's name and the network's name for it, such as [car, sedan], or null to
    leave it out: the mouse of COCO is no animal. Names that are alike need none; categories that
    the network does not know are left out."""

    def __post_init__(self) -> None:
        names = (*BENCHMARK_NAMES, SYNTHETIC)
        if self.dataset not in names:
            raise ValueError(f'Expected dataset out of {", ".join(names)}, got {self.dataset!r}.')
        if bool(self.root) == (self.dataset == SYNTHETIC):
            wanted = 'no root' if self.root else 'a root, the folder of the data set,'
            raise ValueError(
                f'Expected {wanted} for the data set {self.dataset}, got {self.root!r}.'
            )
        check_range(self, 'weight', 0, open_=True)


@dataclass(frozen=True)
class Augmentation:
    """How clips of annotated videos are varied; the same for all frames of a clip.

    The defaults are those of the published recipe for YouTube-VIS and OVIS. For VIPSeg and VSPW it
    takes short sides from 480 to 800, a long side of 1333, and no crops. Synthetic scenes are not
    varied: each is drawn anew.
    """

    short_sides: tuple[int, ...] = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)
    """Pixels; each clip has one of them."""
    max_long_side: int = 768
    """Pixels; the short side is less where the long one would exceed it."""
    crop_probability: float = 0.5
    flip_probability: float = 0.5
    """Of left and right."""
    max_rotation_deg: float = 15.0
    """Of a frame of a pseudo-clip, either way."""

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 8:
            raise ValueError(
                'Expected short_sides, one or more of 8 pixels or more, '
                f'got {list(self.short_sides)}.'
            )
        if self.max_long_side < max(self.short_sides):
            raise ValueError(
                'Expected max_long_side of the largest of short_sides or more, '
                f'{max(self.short_sides)}, got {self.max_long_side}.'
            )
        check_range(self, 'crop_probability flip_probability', 0, 1)
        check_range(self, 'max_rotation_deg', 0, 180)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses and of the matching costs, and how points are drawn.

    Masks and Dice weigh as much in the matching as in the loss.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    class_match_weight: float = 2.0
    """Of the class in the matching cost. The more it counts, the more several queries on one
    object may each guess a class of their own and leave it to the matching to pick the right one.
    """
    no_object_weight: float = 0.1
    """Weight of the class no object in the cross entropy."""
    num_points: int = 12544
    """Points per mask, 112 squared as in Mask2Former."""
    oversample_ratio: float = 3.0
    """Candidates per point from which the most uncertain are taken."""
    importance_ratio: float = 0.75
    """Share of points that are taken for their uncertainty; the rest are uniform."""
    expected_from: Literal['clip', 'first_sight'] = 'clip'
    """From when on the query of an object is to say its class, with an empty mask where it is
    hidden. clip: in every frame, as the released models learnt it; of a clip in chunks, in every
    frame of the chunk where it is first seen and after. first_sight: before, the query is to say
    no object, since nothing in a stream's past can tell that one will come."""

    def __post_init__(self) -> None:
        check_range(
            self, 'class_weight mask_weight dice_weight class_match_weight no_object_weight', 0
        )
        check_range(self, 'num_points oversample_ratio', 1)
        check_range(self, 'importance_ratio', 0, 1)


@dataclass(frozen=True)
class Phase:
    """A part of a run with clips of one length; the first often sees single images."""

    steps: int
    clip_frames: int
    """T; 1 trains the image model."""
    batch_size: int
    """Clips of one step of the optimiser, over all GPUs and `accumulate` parts together: what a
    run learns does not depend on the number of GPUs."""
    max_stride: int = 1
    """Largest distance between neighbouring frames of a clip; each clip draws its own."""
    supersample: int = 1
    """Scenes are drawn so many times larger, and reduced as a camera's image would be."""
    hidden_frames: tuple[int, int] | None = None
    """Fewest and most frames for which shapes of synthetic scenes vanish behind a wall, again and
    again; null: there is no wall."""
    chunk_frames: int | None = None
    """Truncated query propagation: frames that are learned from at a time, 2 or more, with the
    memory of as many; the queries pass on from chunk to chunk, their gradient does not. null: the
    whole clip. Published for clips of 15 frames: 5."""

    def __post_init__(self) -> None:
        check_range(self, 'steps clip_frames batch_size max_stride supersample', 1)
        check_hidden_frames(self.hidden_frames)
        # A single frame teaches nothing about what it hands on.
        if self.chunk_frames is not None:
            check_range(self, 'chunk_frames', 2)


@dataclass(frozen=True)
class Validation:
    """A data set that the run is scored on from time to time, live and by the paper's protocol."""

    dataset: str
    """Its format; see `DataSource`."""
    root: str
    split: str | None = None
    """null: the data set's validation split."""
    limit: int | None = None
    """Only the first so many videos; null: all."""
    every: int = 2000
    """Steps between scores."""
    pictures: int = 4
    """Videos of which predictions are drawn beside the truth."""

    def __post_init__(self) -> None:
        if self.dataset not in BENCHMARK_NAMES:
            raise ValueError(
                f'Expected dataset out of {", ".join(BENCHMARK_NAMES)}, got {self.dataset!r}.'
            )
        check_range(self, 'every', 1)
        check_range(self, 'pictures', 0)
        if self.limit is not None:
            check_range(self, 'limit', 1)


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a run. A run file lists only what differs from these defaults.

    They are the published recipe's, which starts from a pretrained ViT.
    """

    network: VidEoMTConfig
    phases: tuple[Phase, ...]
    """In order; step numbers and schedules run on through all of them."""
    stage: Literal['image', 'video'] = 'video'
    """video: clips, with queries that pass from frame to frame; image: single frames alone, which
    makes the segmenter that a video run starts from (`init_from`)."""
    init_from: str | None = None
    """Weights to start from: whatever `load_model` takes, or `timm:NAME` for a pretrained ViT,
    `timm:NAME:FILE` for one that lies in a local file; null: from scratch."""
    out: str = 'out/train'
    """Folder of checkpoints, log and the final weights."""
    seed: int = 0
    data: tuple[DataSource, ...] = ()
    """What to train on, mixed by weight; none: synthetic scenes alone."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of annotated videos."""
    image_sizes: tuple[tuple[int, int], ...] = ((128, 160),)
    """(height, width) of synthetic scenes in pixels; each batch has one of them, and among other
    data each scene."""
    learning_rate: float = 1e-4
    layer_decay: float = 0.6
    """Factor of the learning rate from a block of the ViT to the one below it; 1 for a network
    from scratch."""
    weight_decay: float = 0.05
    decay_all: bool = True
    """Weight decay for norms, biases, layer scales, prefix tokens and queries too, as in the
    released code; false: for matrices and the table of positions alone."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises from 0."""
    vit_warmup_steps: int | None = 1000
    """Steps over which that of the ViT rises, once the rest has risen; null: with the rest, as a
    network from scratch needs it."""
    decay_power: float = 0.9
    """Of the polynomial decay to 0 that follows."""
    grad_clip_norm: float = 1.0
    """Largest norm of the gradient of all parameters together. The released code configures 0.01,
    and never applies it."""
    masked_attention_until: float = 0.0
    """Share of all steps over which masked attention fades from always to never, in stage image
    one query block after the other; 0: none. Stage image has 5/6 unless told otherwise."""
    ema_decay: float | None = None
    """Of the running mean of the weights, which is what the run delivers; null: it delivers the
    last weights, and keeps no mean."""
    losses: LossWeights = field(default_factory=LossWeights)
    accumulate: int = 1
    """Parts in which each process handles its share of a batch, one after the other: the memory
    of a part, the gradient of the whole. Clips of several sizes are padded to the largest of their
    part, nearly half of 8 clips of the published sizes; a part of one clip has no padding, and is
    what the released models learnt from."""
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto'
    """Of the network; the losses are in float32. auto: bf16 on a GPU, fp32 on a CPU."""
    activation_checkpointing: bool = False
    """Compute the blocks' activations again in the backward pass: less memory, more time."""
    compile: bool = False
    """Run the blocks through torch.compile."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """auto: a GPU if there is one."""
    devices: int = 1
    """Processes on this machine, each with a GPU of its own. Under torchrun or SLURM: what the
    launcher started."""
    nodes: int = 1
    """Machines; as above."""
    threads: int | None = None
    """CPU threads of torch, in each process; null: OMP_NUM_THREADS where it is set, as torchrun
    does for several processes (to 1), or else 4."""
    workers: int = 4
    """Processes that draw clips ahead, for each process that learns."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """The last so many, beside that with the best score."""
    log_every: int = 25
    """Steps between lines of the log."""
    validation: Validation | None = None
    wandb: str | None = None
    """Project at Weights & Biases, whose package is not among the requirements; null: none.
    TensorBoard's files are written anyhow."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError(
                'Expected phases, one or more, got none. Give each steps, clip_frames and '
                'batch_size, as config/train_demo.yaml does.'
            )
        if not self.image_sizes:
            raise ValueError(
                'Expected image_sizes, one [height, width] or more, got none. Leave the setting '
                'out for [[128, 160]].'
            )
        for height, width in self.image_sizes:
            patch = self.network.patch_size
            if min(height, width) < 8 or height % patch or width % patch:
                raise ValueError(
                    'Expected image_sizes of 8 pixels or more, in multiples of the patch '
                    f'{patch}, got {height} x {width}.'
                )
        check_range(self.network, 'num_queries', 1)
        check_range(self, 'seed', 0, 2**31 - 1)  # shifted by 32 bits, it still is a seed of torch
        check_range(self, 'learning_rate grad_clip_norm', 0, open_=True)
        check_range(self, 'weight_decay warmup_steps decay_power workers', 0)
        check_range(self, 'masked_attention_until', 0, 1)
        check_range(self, 'layer_decay', 0, 1, open_=True)
        if self.vit_warmup_steps is not None:
            check_range(self, 'vit_warmup_steps', 0)
        if self.threads is not None:
            check_range(self, 'threads', 1)
        check_range(
            self, 'checkpoint_every keep_checkpoints log_every accumulate devices nodes', 1
        )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f'Expected ema_decay in 0..1, 1 excluded, got {self.ema_decay}.')
        if self.stage == 'image' and (
            self.network.propagation != 'none'
            or any(phase.clip_frames > 1 for phase in self.phases)
        ):
            raise ValueError(
                'Expected network.propagation none and phases of clip_frames 1 for stage image. '
                'load_settings sets both.'
            )

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase that a step of the run is part of."""
        return self.phases[self.phase_at(step)[0]]

    def phase_at(self, step: int) -> tuple[int, int]:
        """The number of the phase that a step of the run is part of, and its number in there."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        total = self.total_steps
        raise IndexError(f'Expected a step below {total}, got {total + step}.')

    def deciding(self) -> dict[str, Any]:
        """What a run and its resumption must agree on: plain values by dotted name."""
        values = {k: v for k, v in asdict(self).items() if k not in MAY_CHANGE}
        # The folder may be another on another machine.
        values['data'] = [
            {k: v for k, v in source.items() if k != 'root'} for source in values['data']
        ]
        for part in ('network', 'losses', 'augmentation'):
            values |= {f'{part}.{name}': value for name, value in values.pop(part).items()}
        return values


def check_range(
    settings: Any, names: str, lowest: float, highest: float = math.inf, *, open_: bool = False
) -> None:
    """Check fields of a record of settings.

    Args:
        settings: the record.
        names: of the fields, separated by spaces.
        lowest: smallest value allowed.
        highest: largest value allowed.
        open_: the lowest value itself is not allowed.

    Raises:
        ValueError: a value is outside, or no number; names the field.
    """
    for name in names.split():
        value = getattr(settings, name)
        if lowest <= value <= highest and not (open_ and value == lowest) and math.isfinite(value):
            continue
        limits = f'above {lowest}' if open_ else f'of {lowest} or more'
        if highest < math.inf:
            limits = f'above {lowest}, up to {highest}' if open_ else f'from {lowest} to {highest}'
        raise ValueError(f'Expected {name} {limits}, got {value}.')
