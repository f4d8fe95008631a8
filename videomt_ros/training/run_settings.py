"""Typed settings of a training run, with the checks of their ranges.

A run file (see `training.run_file`) lists those that differ from the defaults.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from videomt_ros.datasets.benchmarks import BENCHMARK_NAMES
from videomt_ros.datasets.synthetic.wall import check_hidden_frames
from videomt_ros.model.config import NetworkConfig

MAY_CHANGE = (
    'out', 'device', 'devices', 'nodes', 'threads', 'workers', 'accumulate', 'precision',
    'activation_checkpointing', 'compile', 'checkpoint_every', 'keep_checkpoints', 'log_every',
    'validation', 'wandb', 'skip_bad',
)  # fmt: skip
"""Settings that may change when a run is resumed, since they do not change what is learnt."""

SYNTHETIC = 'synthetic'
"""Name of the data set whose scenes are drawn rather than read."""


@dataclass(frozen=True)
class DataSource:
    """One of the data sets that a run mixes."""

    dataset: str
    """Format of the data set: ytvis2019, ytvis2021, ytvis2022, ovis, vipseg, vspw, coco or
    coco_panoptic, also for your own data in one of these formats; or synthetic."""
    root: str = ''
    """Folder of the data set; synthetic has none."""
    split: str = 'train'
    """Split to train on."""
    weight: float = 1.0
    """Share of the clips from this data set, relative to the sum of all weights."""
    renamed: tuple[tuple[str, str | None], ...] = ()
    """Pairs of a category and the class of the network that it is, such as [car, sedan], or null
    to leave the category out: the mouse of COCO is not the animal. Categories with the name of a
    class need no pair; all others are left out."""

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
    """Augmentation of the clips of annotated videos, the same for all frames of a clip.

    The defaults are those of the published recipe for YouTube-VIS and OVIS. For VIPSeg and VSPW
    the recipe has short sides from 480 to 800, a long side of 1333 and no crops. Synthetic scenes
    are not augmented, since each is drawn anew.
    """

    short_sides: tuple[int, ...] = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)
    """Short sides in pixels, of which each clip has one at random."""
    max_long_side: int = 768
    """Largest long side in pixels; clips that would exceed it have a smaller short side."""
    crop_probability: float = 0.5
    """Probability that a clip is cropped."""
    flip_probability: float = 0.5
    """Probability that left and right of a clip are exchanged."""
    max_rotation_deg: float = 15.0
    """Largest rotation of a frame of a pseudo-clip in either direction."""

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
    """Weights of the losses and of the matching costs, and settings of the sampled points."""

    class_weight: float = 2.0
    """Weight of the class loss."""
    mask_weight: float = 5.0
    """Weight of the binary cross entropy of masks, in the loss and in the matching cost."""
    dice_weight: float = 5.0
    """Weight of the Dice loss of masks, in the loss and in the matching cost."""
    class_match_weight: float = 2.0
    """Weight of the class in the matching cost. With a large one, several queries on an object
    may each predict another class and leave the choice to the matching."""
    no_object_weight: float = 0.1
    """Weight of the class no object in the cross entropy."""
    num_points: int = 12544
    """Number of points per mask, 112 squared as in Mask2Former."""
    oversample_ratio: float = 3.0
    """Number of candidates per point, of which the most uncertain are taken."""
    importance_ratio: float = 0.75
    """Share of the points that are taken for their uncertainty; the others are uniform."""
    expected_from: Literal['clip', 'first_sight'] = 'clip'
    """Frames in which the query of an object is to predict its class, with an empty mask where
    the object is hidden. clip: all frames, as in the released models; for clips in chunks, all
    frames from the chunk on in which it first appears. first_sight: the frames since the object
    first appears; before, the query is to predict no object, since the past of a stream does not
    tell that an object will come."""

    def __post_init__(self) -> None:
        check_range(
            self, 'class_weight mask_weight dice_weight class_match_weight no_object_weight', 0
        )
        check_range(self, 'num_points oversample_ratio', 1)
        check_range(self, 'importance_ratio', 0, 1)


@dataclass(frozen=True)
class Phase:
    """A part of a run with clips of one length; the first phase often has single images."""

    steps: int
    """Number of steps of the optimiser."""
    clip_frames: int
    """Number of frames of a clip, T; 1 trains the image model."""
    batch_size: int
    """Clips per step of the optimiser over all GPUs and all `accumulate` parts, so that what a
    run learns does not depend on the number of GPUs."""
    max_stride: int = 1
    """Largest distance between neighbouring frames of a clip; each clip has a random one."""
    frame_range: int | None = None
    """Largest distance of the frames of a clip from one of them; null: frames at equal distances.
    The frames of a clip of an annotated video are then drawn at random, time and again the same
    one, and sorted, as in the released data loader for ranges other than (clip_frames - 1) / 2.
    LVMT has 5 for clips of 15 frames."""
    supersample: int = 1
    """Factor by which synthetic scenes are drawn larger, and then reduced as the image of a
    camera would be."""
    hidden_frames: tuple[int, int] | None = None
    """Smallest and largest number of frames for which shapes of synthetic scenes are hidden by a
    wall, time and again; null: there is no wall."""
    hidden_share: float = 1.0
    """Share of the synthetic scenes that have the wall of `hidden_frames`."""
    hard_share: float = 0.0
    """Share of the synthetic scenes that are harder: thin and alike shapes, moving textures, a
    shaking camera."""
    chunk_frames: int | None = None
    """Length of a chunk for truncated query propagation, 2 or more: queries are propagated from
    chunk to chunk but their gradients are not, so that a step takes the memory of one chunk.
    LVMT has 5 for clips of 15 frames. null: the whole clip is one chunk."""

    def __post_init__(self) -> None:
        check_range(self, 'steps clip_frames batch_size max_stride supersample', 1)
        if self.frame_range is not None:
            check_range(self, 'frame_range', 1)
        check_hidden_frames(self.hidden_frames)
        check_range(self, 'hidden_share hard_share', 0, 1)
        # In a chunk of one frame, the queries it propagates get no gradient.
        if self.chunk_frames is not None:
            check_range(self, 'chunk_frames', 2)


@dataclass(frozen=True)
class Validation:
    """Data set on which the run is scored from time to time, in both modes of the evaluation."""

    dataset: str
    """Format of the data set; see `DataSource`."""
    root: str
    """Folder of the data set."""
    split: str | None = None
    """Split to score; null: the validation split of the data set."""
    limit: int | None = None
    """Number of videos to score, the first ones of the data set; null: all."""
    every: int = 2000
    """Number of steps between scores."""
    pictures: int = 4
    """Number of videos whose predictions are drawn beside the truth."""

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
    """All settings of a run.

    The defaults are those of the published recipe, which starts from a pretrained ViT.
    """

    network: NetworkConfig
    """Sizes, classes and design of the network."""
    phases: tuple[Phase, ...]
    """Phases in order; step numbers and schedules continue from one to the next."""
    stage: Literal['image', 'video'] = 'video'
    """video: clips, with queries propagated from frame to frame; image: single frames, which
    train the segmenter that a video run starts from (`init_from`)."""
    init_from: str | None = None
    """Weights to start from: anything that `load_model` takes, `timm` for the pretrained ViT that
    fits the network, `timm:NAME` for another one, or `timm:NAME:FILE` for a ViT in a local file;
    null: random weights."""
    out: str = 'out/train'
    """Folder for checkpoints, log and the final weights."""
    seed: int = 0
    """Seed of all random draws of the run."""
    data: tuple[DataSource, ...] = ()
    """Data sets to train on, mixed by weight; empty: synthetic scenes only."""
    skip_bad: bool = False
    """Leave out records of the data sets that cannot be used, with a message; else each is an
    error."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Augmentation of annotated videos."""
    image_sizes: tuple[tuple[int, int], ...] = ((128, 160),)
    """Sizes (height, width) of synthetic scenes in pixels. All scenes of a batch have the same
    one; beside other data sets, each scene has its own."""
    learning_rate: float = 1e-4
    """Base learning rate of AdamW."""
    layer_decay: float = 0.6
    """Factor of the learning rate from a block of the ViT to the block below; 1 for a network
    with random weights."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    decay_all: bool = True
    """Whether norms, biases, layer scales, prefix tokens and queries decay too, as in the
    released code, and not only matrices and the position table."""
    warmup_steps: int = 500
    """Number of steps over which the learning rate rises from 0."""
    vit_warmup_steps: int | None = 1000
    """Number of steps over which the learning rate of the ViT rises, after the warm-up of the
    other parameters; null: together with them, as a network with random weights needs it."""
    decay_power: float = 0.9
    """Power of the polynomial decay of the learning rate to 0."""
    grad_clip_norm: float = 1.0
    """Largest norm of the gradient of all parameters together. The released code configures 0.01
    but never applies it."""
    masked_attention_until: float = 0.0
    """Share of all steps over which the probability of masked attention falls from 1 to 0, in
    stage image one query block after the other; 0: no masked attention. The default in stage
    image is 5/6."""
    ema_decay: float | None = None
    """Decay of the exponential moving average of the weights, which the run delivers; null: the
    run delivers its last weights and keeps no average."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the losses, and how masks are compared."""
    max_minutes: float | None = None
    """Minutes in which the run is to end, by the clock from its first step on, a run that is
    resumed included; null: no limit. If it is too slow for all steps, it leaves out some,
    evenly, so that all phases and schedules are passed. In one process only."""
    accumulate: int = 1
    """Number of parts in which each process computes its share of a batch one after the other:
    the memory is that of a part, the gradient that of the whole. Clips are padded to the largest
    of their part; of 8 clips of the published sizes nearly half is padding. A part of one clip
    has no padding, as in the training of the released models."""
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto'
    """Precision of the network; losses are in float32. auto: bf16 on a GPU and on a CPU that
    computes with it faster (AMX or AVX512_BF16), else fp32."""
    activation_checkpointing: bool = False
    """Whether the backward pass recomputes the activations of the blocks, which takes less memory
    and more time."""
    compile: bool = False
    """Whether the blocks run through torch.compile."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Device to train on; auto: a GPU if there is one."""
    devices: int = 1
    """Number of processes on each machine, each with its own GPU. torchrun and SLURM override
    it."""
    nodes: int = 1
    """Number of machines. torchrun and SLURM override it."""
    threads: int | None = None
    """CPU threads of torch in each process; null: OMP_NUM_THREADS if it is set (torchrun sets it
    to 1 for several processes), otherwise 4."""
    workers: int = 4
    """Number of processes that load clips ahead, for each process that trains."""
    checkpoint_every: int = 1000
    """Number of steps between checkpoints."""
    keep_checkpoints: int = 2
    """Number of latest checkpoints to keep, beside the one with the best score."""
    log_every: int = 25
    """Number of steps between lines of the log."""
    validation: Validation | None = None
    """Data set to score the run on; null: the run is not scored."""
    wandb: str | None = None
    """Project at Weights & Biases, whose package is to be installed separately; null: none. Logs
    for TensorBoard are written in any case."""

    def __post_init__(self) -> None:
        if all(source.dataset == SYNTHETIC for source in self.data):
            # The file of the run carries this, so that whoever loads it is told.
            object.__setattr__(self, 'network', replace(self.network, drawn_only=True))
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
        check_range(
            self, 'seed', 0, 2**31 - 1
        )  # TrainModule shifts it left by 32 bits, and torch takes 64
        check_range(self, 'learning_rate grad_clip_norm', 0, open_=True)
        check_range(self, 'weight_decay warmup_steps decay_power workers', 0)
        check_range(self, 'masked_attention_until', 0, 1)
        check_range(self, 'layer_decay', 0, 1, open_=True)
        if self.vit_warmup_steps is not None:
            check_range(self, 'vit_warmup_steps', 0)
        if self.threads is not None:
            check_range(self, 'threads', 1)
        if self.max_minutes is not None:
            check_range(self, 'max_minutes', 0, open_=True)
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
        """Number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """Return the phase of a step of the run."""
        return self.phases[self.phase_at(step)[0]]

    def phase_at(self, step: int) -> tuple[int, int]:
        """Return the index of the phase of a step of the run, and the number of the step in it."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        total = self.total_steps
        raise IndexError(f'Expected a step below {total}, got {total + step}.')

    def deciding(self) -> dict[str, Any]:
        """Return the settings that must not change when a run is resumed, by dotted name."""
        values = {k: v for k, v in asdict(self).items() if k not in MAY_CHANGE}
        # Data may lie in another folder on another machine.
        values['data'] = [
            {k: v for k, v in source.items() if k != 'root'} for source in values['data']
        ]
        for part in ('network', 'losses', 'augmentation'):
            values |= {f'{part}.{name}': value for name, value in values.pop(part).items()}
        return values


def check_range(
    settings: Any, names: str, lowest: float, highest: float = math.inf, *, open_: bool = False
) -> None:
    """Check that fields of a dataclass are finite numbers within a range.

    Args:
        settings: instance of the dataclass.
        names: names of the fields, separated by spaces.
        lowest: smallest allowed value.
        highest: largest allowed value.
        open_: whether `lowest` itself is not allowed.

    Raises:
        ValueError: a value is not; names the field.
    """
    for name in names.split():
        value = getattr(settings, name)
        if lowest <= value <= highest and not (open_ and value == lowest) and math.isfinite(value):
            continue
        limits = f'above {lowest}' if open_ else f'of {lowest} or more'
        if highest < math.inf:
            limits = f'above {lowest}, up to {highest}' if open_ else f'from {lowest} to {highest}'
        raise ValueError(f'Expected {name} {limits}, got {value}.')
