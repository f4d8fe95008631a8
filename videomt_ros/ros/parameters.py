"""The node's parameters: their names, types, defaults, ranges and meanings.

A test checks `config/segmenter.yaml`, which gives the launch files their arguments, against this
table. The settings of the stream are taken from `inference.StreamSettings`.

Where there are several cameras, `front.score_threshold` is the value of the camera `front`; a
camera without a value of its own follows the common one, `score_threshold`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from videomt_ros.engines import ENGINE_NAMES
from videomt_ros.inference import StreamSettings
from videomt_ros.inference.input_size import MAX_INPUT_SIZE, check_input_size
from videomt_ros.model.config import NetworkConfig, Task
from videomt_ros.ros.parameter_entry import check_value, parameter


def _setting(name: str) -> Any:
    """Build the entry of a setting of the stream from its field in StreamSettings."""
    (setting,) = (entry for entry in fields(StreamSettings) if entry.name == name)
    return parameter(setting.default, per_camera=True, dynamic=True, **setting.metadata)


def _switch(output: str, default: bool, condition: str = '') -> Any:
    """Build the entry that switches an output on and off."""
    meaning = f'Publish segmentation/{output} if it has a subscriber.{condition}'
    return parameter(default, meaning, per_camera=True, dynamic=True)


_NEEDS_DEPTH = ' Needs depth.'

_LATENCY = '95th percentile of the milliseconds from the arrival of an image to its results'


def _threshold(default: float, what: str, side: str, level: str) -> Any:
    """Build the entry of a threshold of the diagnostics."""
    meaning = (
        f'{what} {side} which the diagnostics of the camera are at the level {level}. 0: none.'
    )
    return parameter(default, meaning, range=(0.0, 1e6), per_camera=True, dynamic=True)


@dataclass(frozen=True)
class NodeParameters:
    """The values of all parameters for one camera, which are checked when it is built."""

    model: str = parameter(
        '',
        'What to load: a .pth or .safetensors file, a Hugging Face folder or hub name, or a name '
        'that `videomt models` lists. There is no default.',
    )
    models: tuple[str, ...] = parameter(
        (),
        'Several models that run on the images of every camera, in place of model and each '
        'written as it is. Those with the same frozen encoder (PMT, LVMT) run it once for all. '
        'The topics of each are below its task, as in panoptic/segmentation/..., or below its '
        'name where two have one task. Empty: the one of model.',
    )
    device: str = parameter(
        'auto',
        'Where the network runs: auto (a GPU if there is one), cpu, cuda, cuda:0, cuda:1, ...',
        pattern=r'auto|cpu|cuda(:\d+)?',
    )
    precision: str = parameter(
        'auto',
        'Number format of the network; auto is fp16 on a GPU, bf16 on a CPU that computes with it '
        'faster (AMX or AVX512_BF16), else fp32.',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
    )
    engine: str = parameter(
        'eager',
        'What runs the network: eager (torch as it is), compiled (a program for each size of '
        'images, which is made once and kept in the cache of the user) or onnxruntime. An engine '
        'that cannot be built is replaced by eager, with an error in the log.',
        choices=ENGINE_NAMES,
    )
    providers: str = parameter(
        'auto',
        'What the engine onnxruntime computes with: auto (cuda on a GPU, else cpu), or some of '
        'tensorrt, cuda and cpu with commas, the first preferred.',
        pattern=r'auto|(cpu|cuda|tensorrt)(,(cpu|cuda|tensorrt))*',
    )
    task: str = parameter(
        'auto',
        'Kind of results; auto is what the model was trained for.',
        choices=('auto', 'instance', 'panoptic', 'semantic'),
    )
    cameras: tuple[str, ...] = parameter(
        (),
        'Names of the cameras, which share the network; camera front has the topics '
        'front/image_raw and front/segmentation/... Empty: one camera without a name, with '
        'image_raw and segmentation/...',
        pattern=r'[A-Za-z][A-Za-z0-9_]*',
    )
    max_batch: int = parameter(
        8,
        'Largest number of images, one of each camera, that the network processes at once. A '
        'smaller one takes less memory, and the first results come sooner.',
        range=(1, 64),
    )
    pipeline_depth: int = parameter(
        1,
        'Number of batches in progress on a GPU. With 2 the network begins with images that wait '
        'before the results of those before are complete: more images per second, and a result '
        'may come later while images wait. A CPU does one batch after the other.',
        range=(1, 2),
    )
    transport: str = parameter(
        'auto',
        'How images arrive: raw (sensor_msgs/Image on image_raw), compressed '
        '(sensor_msgs/CompressedImage on image_raw/compressed, or on the topic itself), or auto: '
        'raw if it is published, else compressed.',
        choices=('auto', 'raw', 'compressed'),
        per_camera=True,
    )
    input_reliability: str = parameter(
        'auto',
        'QoS of the image subscription. best_effort receives from every camera but may lose '
        'images, above all large ones; reliable loses none but receives from reliable cameras '
        'only; auto starts as reliable if all cameras on the topic are, else as best_effort, and '
        'changes if it would receive from none or if no image comes for 5 s.',
        choices=('auto', 'best_effort', 'reliable'),
        per_camera=True,
    )
    input_depth: int = parameter(
        5,
        'QoS of the image subscription: number of images that may wait in the middleware.',
        range=(1, 100),
        per_camera=True,
    )
    grey_low: int = parameter(
        0,
        'Value of a 16-bit image that becomes black, as of a thermal camera.',
        range=(0, 65534),
        per_camera=True,
        dynamic=True,
    )
    grey_high: int = parameter(
        65535,
        'Value of a 16-bit image that becomes white; larger than grey_low.',
        range=(1, 65535),
        per_camera=True,
        dynamic=True,
    )
    image_width: int = parameter(
        0,
        'Width of the images that are expected, for which the engine is made ready when the node '
        'is configured; images of other sizes are processed too. 0: 640.',
        range=(0, 65535),
        per_camera=True,
    )
    image_height: int = parameter(
        0,
        'Height of the images that are expected. 0: 480.',
        range=(0, 65535),
        per_camera=True,
    )
    input_size: int = parameter(
        0,
        'Short side in pixels to which images are resized for the network, a multiple of its '
        'patch size; a smaller one takes less time and loses small objects. 0: the size that the '
        'model was tested with.',
        range=(0, MAX_INPUT_SIZE),
        per_camera=True,
    )
    max_rate_hz: float = parameter(
        0.0,
        'Largest number of images per second, by their stamps, that are processed; the others are '
        'dropped before they are decoded. 0: all.',
        range=(0.0, 1000.0),
        per_camera=True,
        dynamic=True,
    )
    stale_after_s: float = parameter(
        0.0,
        'Age in seconds, from its stamp to the clock of the node, above which an image is dropped '
        'when its turn comes. 0: never.',
        range=(0.0, 3600.0),
        per_camera=True,
        dynamic=True,
    )
    score_threshold: float = _setting('score_threshold')
    mask_threshold: float = _setting('mask_threshold')
    overlap_threshold: float = _setting('overlap_threshold')
    min_area: int = _setting('min_area')
    speck_share: float = _setting('speck_share')
    association: str = _setting('association')
    same_object_iou: float = _setting('same_object_iou')
    jump_sizes: float = _setting('jump_sizes')
    gap_s: float = _setting('gap_s')
    max_gap_s: float = _setting('max_gap_s')
    memory_s: float = _setting('memory_s')
    memory_similarity: float = _setting('memory_similarity')
    confirm_frames: int = _setting('confirm_frames')
    class_filter: tuple[str, ...] = _setting('class_filter')
    track_states: tuple[str, ...] = _setting('track_states')
    mask_classes: tuple[str, ...] = parameter(
        (),
        'Names of the classes in segmentation/mask; empty: all things.',
        per_camera=True,
        dynamic=True,
    )
    instance_encoding: str = parameter(
        'mono16',
        'Encoding of segmentation/instances: mono16, whose pixels are track ids, or 32SC1, whose '
        'pixels are class id << 16 | track id.',
        choices=('mono16', '32SC1'),
        per_camera=True,
        dynamic=True,
    )
    depth: bool = parameter(
        False,
        'Give tracks their position and extent in metres, from depth images on depth/image_raw '
        'that are aligned with the image, and the camera_info of the image.',
        per_camera=True,
        dynamic=True,
    )
    depth_tolerance_s: float = parameter(
        0.02,
        'Largest difference in seconds between the stamps of an image and of its depth image.',
        range=(0.0, 10.0),
        per_camera=True,
        dynamic=True,
    )
    publish_tracks: bool = _switch('tracks', True)
    publish_instances: bool = _switch('instances', True)
    publish_semantic: bool = _switch('semantic', True)
    publish_confidence: bool = _switch('confidence', True)
    publish_mask: bool = _switch('mask', True)
    publish_camera_info: bool = _switch('camera_info', True)
    publish_detections: bool = _switch('detections', True)
    publish_detections3d: bool = _switch('detections3d', False, _NEEDS_DEPTH)
    publish_markers: bool = _switch('markers', False, _NEEDS_DEPTH)
    publish_points: bool = _switch('points', False, _NEEDS_DEPTH)
    publish_label_info: bool = parameter(
        True,
        'Publish segmentation/label_info when the node is activated, also for later subscribers.',
        per_camera=True,
        dynamic=True,
    )
    publish_overlay: bool = _switch('overlay', True)
    publish_overlay_compressed: bool = _switch('overlay/compressed', True)
    drawn_images: bool = parameter(
        False,
        'The images are drawn scenes, as `videomt synth` writes them. In other images, the '
        'overlay of a model that was trained on such scenes alone says so.',
        per_camera=True,
        dynamic=True,
    )
    warn_silence_s: float = _threshold(5.0, 'Time in seconds without an image', 'above', 'WARN')
    error_silence_s: float = _threshold(0.0, 'Time in seconds without an image', 'above', 'ERROR')
    warn_latency_ms: float = _threshold(0.0, _LATENCY, 'above', 'WARN')
    error_latency_ms: float = _threshold(0.0, _LATENCY, 'above', 'ERROR')
    warn_rate_hz: float = _threshold(0.0, 'Number of results per second', 'below', 'WARN')
    error_rate_hz: float = _threshold(0.0, 'Number of results per second', 'below', 'ERROR')
    warn_lost_share: float = parameter(
        0.05,
        'Share of the images of the last 10 s that were lost before they reached the node, above '
        'which the diagnostics of the camera are at the level WARN. 0: none.',
        range=(0.0, 1.0),
        per_camera=True,
        dynamic=True,
    )
    error_stall_s: float = parameter(
        5.0,
        'Time in seconds that the network takes for one batch above which the diagnostics of the '
        'model are at the level ERROR. 0: none.',
        range=(0.0, 1e6),
        dynamic=True,
    )
    threads: int = parameter(
        0,
        'Largest number of CPU threads that one operation of the network or of the image '
        "processing uses. 0: the libraries' own choice, mostly one for each core.",
        range=(0, 1024),
    )
    max_failures: int = parameter(
        100,
        'Number of images of one camera in a row on which inference fails, after which the node '
        'goes through its error state to unconfigured and, with autostart, ends with exit code 1. '
        '0: never.',
        range=(0, 1000000),
        dynamic=True,
    )
    autostart: bool = parameter(
        True,
        'Configure and activate the node at its start; end with exit code 1 if that fails.',
        read_only=True,
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            check_value(entry, getattr(self, entry.name))
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f'Expected cameras of different names, got {list(self.cameras)}.')
        if self.model and self.models:
            raise ValueError(
                f'Expected model or models, got {self.model!r} and {list(self.models)}. Leave one '
                'of them empty.'
            )
        if self.grey_low >= self.grey_high:
            raise ValueError(
                f'Expected grey_low below grey_high, got {self.grey_low} and {self.grey_high}.'
            )

    def grey_range(self) -> tuple[int, int] | None:
        """Get the values of 16-bit images that become black and white; None: their full range."""
        limits = (self.grey_low, self.grey_high)
        return None if limits == (0, 65535) else limits

    def stream_task(self) -> Task | None:
        """Get the task as VideoStream takes it; None is the model's own."""
        return None if self.task == 'auto' else cast(Task, self.task)

    def all_models(self) -> tuple[str, ...]:
        """Get what the models are loaded from; nothing if none was chosen."""
        return self.models or ((self.model,) if self.model else ())

    def stream_settings(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Get the values of the stream's settings, by name.

        Args:
            class_names: names of the model's classes. Of the class filter it gets those that it
                knows; if it knows none of them, no tracks are published.
        """
        values = {setting.name: getattr(self, setting.name) for setting in fields(StreamSettings)}
        if self.class_filter:
            known = tuple(name for name in self.class_filter if name in class_names)
            values['class_filter'] = known
            if not known:
                values['track_states'] = ()
        return values

    def check_classes(self, class_names: Collection[str]) -> None:
        """Check the class filter and the classes of the mask against the classes of the models.

        Args:
            class_names: names of the classes of all models.

        Raises:
            ValueError: no model knows a class; names it and the most similar known one.
        """
        for entry in ('class_filter', 'mask_classes'):
            for name in getattr(self, entry):
                if name not in class_names:
                    nearest = difflib.get_close_matches(name, class_names, n=1, cutoff=0.0)
                    raise ValueError(
                        f'Expected in {entry} a class of the model, got {name!r}. '
                        f'The nearest is {nearest[0]!r}.'
                    )


@dataclass(frozen=True)
class Parameters:
    """The values of all parameters for all cameras."""

    common: NodeParameters
    """Values of the node, and of every camera without a value of its own."""
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values of single cameras: by name of the camera, then of the parameter."""

    def __post_init__(self) -> None:
        for camera in self.own:
            self.of_camera(camera)

    def of_camera(self, camera: str) -> NodeParameters:
        """Get the values that a camera uses.

        Raises:
            ValueError: a value of its own is wrong.
        """
        try:
            return replace(self.common, **self.own.get(camera, {}))
        except ValueError as error:
            raise ValueError(f'Camera {camera}: {error}') from error

    def check_classes(self, class_names: Collection[str]) -> None:
        """Check the class filters against the classes of all models.

        Raises:
            ValueError: no model knows a class; names it and the most similar known one.
        """
        self.common.check_classes(class_names)
        for camera in self.common.cameras:
            try:
                self.of_camera(camera).check_classes(class_names)
            except ValueError as error:
                raise ValueError(f'Camera {camera}: {error}') from error

    def check_input_sizes(self, config: NetworkConfig) -> None:
        """Check that the network takes the input sizes.

        Raises:
            ValueError: it does not take one; says which it takes.
        """
        for camera in self.common.cameras or ('',):
            input_size = self.of_camera(camera).input_size
            if not input_size:
                continue
            try:
                check_input_size(input_size, config)
            except ValueError as error:
                raise ValueError(f'Camera {camera}: {error}' if camera else str(error)) from error
