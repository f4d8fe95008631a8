"""Loading weights into a network, strictly, and saving them.

`load_model` takes the original `.pth` files, a folder of transformers, our own file, a checkpoint
of `videomt train`, a hub name or a name from `models/`. The content of a file decides what it is;
sizes are read from its tensors. `load_vit` takes timm's pretrained ViTs, for the backbone alone.
Both read files and compare tensors in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models import eva, vision_transformer
from torch import Tensor

from videomt_ros.files import whole_file
from videomt_ros.model import hub, presets
from videomt_ros.model.backbone import check_design, pretrained_record
from videomt_ros.model.build import build_network
from videomt_ros.model.config import NetworkConfig
from videomt_ros.model.config_completion import Checkpoint, build_config
from videomt_ros.model.delta_weights import refuse_differences
from videomt_ros.model.layouts import TIMM, VERSION, find_layout, is_network
from videomt_ros.model.network import VideoNetwork
from videomt_ros.model.onnx_files import is_onnx, read_onnx_config
from videomt_ros.model.sources import fetch_preset, find_source
from videomt_ros.model.weight_files import FORMAT, CheckpointError, read_weights
from videomt_ros.model.wrappings import unwrap_names

logger = logging.getLogger(__name__)


def load_model(
    source: str | Path, fallback: Mapping[str, Any] | None = None, **overrides: Any
) -> VideoNetwork:
    """Build a network and load its weights; nothing in a file is executed.

    Args:
        source: a name from `models/` (`videomt models` lists them); if there is none such, the
            path of an original `.pth`, of a folder with config.json and safetensors, of our own
            `.safetensors`, of a run's `.ckpt`, whose averaged weights are taken if it has some, or
            of the folder of a run, which stands for its best weights; if nothing lies there, a hub
            name, 'owner/name', or its address. A Path is only ever a path.
        fallback: fields of NetworkConfig for which neither file nor preset has a value.
        overrides: fields of NetworkConfig; each wins over what file and preset say.

    Returns:
        The network on the CPU in float32 (whatever the file holds), in eval mode.

    Raises:
        CheckpointError: the weights can't be found or read, or don't fit; the message is one line
            and names every missing, unknown and misshapen key.
        ValueError: an override is unknown or out of range.
    """
    NetworkConfig.check_names(overrides)
    checkpoint = read_checkpoint(source)
    known = checkpoint.known()
    added = {key: value for key, value in (fallback or {}).items() if key not in known}
    net = _build_empty(build_config(checkpoint, added | overrides))
    weights = fit_tensors(checkpoint, net.state_dict(), net.config.num_query_blocks)
    refuse_differences(weights, checkpoint.tensors, checkpoint.origin, net.config)
    net.load_state_dict(weights, assign=True)
    assert not any(value.is_meta for value in (*net.parameters(), *net.buffers()))
    return net.eval()


def load_config(source: str | Path, **overrides: Any) -> NetworkConfig:
    """Find the configuration that `load_model` gives the network of a source.

    A source may also be an ONNX file of `videomt export`, which `load_model` does not take; its
    configuration is fixed.

    Raises:
        CheckpointError: the weights can't be found or read, or don't tell enough.
        ValueError: an override is unknown or out of range.
    """
    NetworkConfig.check_names(overrides)
    found = find_source(source)
    if isinstance(found, Path) and is_onnx(found):
        return read_onnx_config(found)
    return build_config(read_checkpoint(source), overrides)


def load_vit(vit: Any, config: NetworkConfig, name: str, file: Path | None = None) -> None:
    """Load pretrained weights into the ViT of a network, as strictly as `load_model`.

    Args:
        vit: `backbone.vit` of a network of this configuration, on the CPU.
        config: configuration of the network.
        name: name of a model of timm, such as 'vit_small_patch14_reg4_dinov2'; a tag behind a
            point says which of its weights are meant.
        file: file with these weights, as timm or their authors publish them; None: downloaded,
            unless they are in the cache.

    Raises:
        ValueError: timm has no such model, or it is of another family or size than the network.
        CheckpointError: the weights are out of reach, damaged, or not those of this model; the
            message names every missing, unknown and misshapen key.
    """
    check_design(config, name)
    about = pretrained_record(name)
    mean, std = ([round(255 * value, 3) for value in values] for values in (about.mean, about.std))
    if mean != list(config.pixel_mean):
        logger.warning(
            '%s was trained on images normalised by mean %s and std %s; network.pixel_mean and '
            'network.pixel_std differ.',
            name, mean, std,
        )  # fmt: skip
    origin = str(file)
    if file is None:
        origin = f'{about.hf_hub_id} of the Hugging Face hub'
        try:
            file = hub.fetch_file(about.hf_hub_id, 'model.safetensors')
        except CheckpointError as error:
            raise CheckpointError(f'{error} A file goes in as timm:{name}:FILE.') from None
    elif not file.is_file():
        raise CheckpointError(f'{file}: expected the weights of {name}, there is no such file.')
    # Read here, because timm would run code that hides in a file.
    tensors = unwrap_names(read_weights(file).tensors, _is_vit, origin)
    tensors = _convert_vit(tensors, vit, config.family, '_qkvb' in name)
    weights = fit_tensors(Checkpoint(origin, name, tensors, TIMM), vit.state_dict())
    refuse_differences(weights, {}, origin, config, name)
    vit.load_state_dict(weights)
    logger.info('The ViT starts from %s, %s.', name, origin)


def save_model(
    net: VideoNetwork,
    path: str | Path,
    dtype: torch.dtype | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write our own file: weights, and the configuration with class names in its metadata.

    The file appears whole or not at all.

    Args:
        net: the network; its own weights keep their type.
        path: where to, ending in .safetensors.
        dtype: type on disk, such as torch.float16; None: the weights' own.
        about: further metadata, which `load_model` ignores.

    Raises:
        ValueError: the path has another ending, or a weight is not finite in this type.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ValueError(f'Expected a path that ends in .safetensors, got {path}.')
    tensors = {
        key: value.detach().to('cpu', dtype).contiguous()
        for key, value in net.state_dict().items()
    }
    bad = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f'Expected finite weights to save, these are not: {", ".join(bad)}.')
    metadata = {**(about or {}), **describe(net.config)}
    # Not with save_file, whose error for a full disk has no errno.
    with whole_file(path, durable=True) as file:
        file.write(save(tensors, metadata))


def describe(config: NetworkConfig) -> dict[str, str]:
    """Build the metadata of our own files, from which `load_model` builds the network."""
    return {'format': FORMAT, 'version': VERSION, 'config': json.dumps(config.to_dict())}


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Find a checkpoint and read it; see `load_model` for what a source can be.

    Raises:
        CheckpointError: the weights can't be found or read.
    """
    found = find_source(source)
    if isinstance(found, presets.Preset):
        return _read_preset(found)
    if isinstance(found, str):
        return _read_hub(found)
    if (folder := Path(source).expanduser()) != found:
        logger.info('%s is the folder of a run: its %s is loaded.', folder, found.name)
    return _read(found)


def _read_preset(preset: presets.Preset) -> Checkpoint:
    path = fetch_preset(preset)
    if not path.exists():
        raise CheckpointError(f'{path}: the weights of {preset.name} are missing.')
    return _read(path, preset)


def _read_hub(repository: str) -> Checkpoint:
    try:
        folder = hub.fetch_folder(repository)
    except CheckpointError as error:
        # The text may be a misspelt path.
        owner, _, name = repository.partition('/')
        raise CheckpointError(
            f'{error} There is no file or folder {repository} here either.'
            f'{presets.nearest(name) if owner == presets.OWNER else ""}'
        ) from None
    if not (folder / 'config.json').is_file():
        known = presets.readable_presets()
        names = [preset.name for preset in known if preset.source == repository]
        instead = f' Its files load by name: {", ".join(names)}.' if names else ''
        raise CheckpointError(
            f'Expected config.json and model.safetensors in {repository}, the repository has no '
            f'config.json.{instead}'
        )
    return _read(folder, name=repository.split('/')[1])


def _read(path: Path, preset: presets.Preset | None = None, name: str = '') -> Checkpoint:
    """Read a file or folder; a preset that describes it is found by its name if none is given."""
    weights = read_weights(path)
    weights = replace(
        weights,
        tensors=unwrap_names(
            weights.tensors,
            lambda tensors: is_network(replace(weights, tensors=tensors)),
            str(path),
        ),
    )
    layout = find_layout(weights)
    if weights.config is not None:
        name = name or weights.path.resolve().name
        preset = preset or presets.find_preset(converted=name)
    else:
        name = path.stem
        preset = preset or presets.find_preset(file=path.name)
    settings = layout.read_settings(weights)
    name = settings.get('name') or (preset.name if preset else name)
    return Checkpoint(str(weights.path), name, weights.tensors, layout, settings, preset)


def _build_empty(config: NetworkConfig) -> VideoNetwork:
    """Build a network without memory for its weights, which are assigned to it later.

    Random weights that the file's replace at once would take most of the loading time.

    Returns:
        The network with weights on the meta device, and whatever no file holds ready on the CPU.
    """
    with torch.device('meta'):
        net = build_network(config)
    module: Any
    for module in net.modules():
        if module._non_persistent_buffers_set:
            # Angles and key biases, which timm computes; reset_parameters is its way to say so.
            module.to_empty(device='cpu', recurse=False)
            module.reset_parameters()
    return net


def fit_tensors(
    checkpoint: Checkpoint, targets: Mapping[str, Tensor], num_query_blocks: int = 0
) -> dict[str, Tensor]:
    """Move the tensors of a checkpoint to the names of a state dict, all of them float32.

    Each leaves the checkpoint as it is copied, so that a large model is not held twice. The
    copies do not lie in the file any more, which may change or go away after this.

    Args:
        checkpoint: the tensors by their names in the file.
        targets: the state dict, for names and shapes; its values may lie on the meta device.
        num_query_blocks: length of the tensor of that name, if the layout has one.

    Raises:
        CheckpointError: one line that names every key that is missing, unknown, misshapen, of
            another type, not finite or a variance below 0, as the file calls it.
    """
    layout, tensors = checkpoint.layout, checkpoint.tensors
    shapes = layout.file_shapes(targets)
    lengths = {layout.query_blocks: (num_query_blocks,)} if layout.query_blocks in tensors else {}
    faults = {
        'missing': [key for key in shapes if key not in tensors],
        'unknown': [key for key in tensors if key not in shapes and not layout.is_unused(key)],
        'misshapen': [
            f'{key} (expected {_size(shape)}, got {_size(tensors[key].shape)})'
            for key, shape in (shapes | lengths).items()
            if key in tensors and tensors[key].shape != shape
        ],
        **_find_bad_values({key: tensors[key] for key in shapes if key in tensors}),
    }
    listed = [f'{what} ({len(keys)}): {", ".join(keys)}' for what, keys in faults.items() if keys]
    if listed:
        raise CheckpointError(
            f'{checkpoint.origin}: the weights ({layout.name} layout) do not fit the network: '
            f'{"; ".join(listed)}.'
        )
    return {
        key: torch.cat([tensors.pop(part).float() for part in layout.file_keys(key)]).view(
            target.shape
        )
        for key, target in targets.items()
    }


def _find_bad_values(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Find the tensors that are not floating-point, not finite, or impossible variances."""
    wrong_type = {key: value for key, value in tensors.items() if not value.is_floating_point()}
    names = {key: str(value.dtype).removeprefix('torch.') for key, value in wrong_type.items()}
    return {
        'of a type that is no floating-point number': [f'{k} ({v})' for k, v in names.items()],
        'not finite numbers': [
            key
            for key, value in tensors.items()
            if key not in wrong_type and not _is_finite(value)
        ],
        'variances below 0': [
            key
            for key, value in tensors.items()
            if key.endswith('.running_var') and bool((value.float() < 0).any())
        ],
    }


def _is_finite(values: Tensor) -> bool:
    """Tell whether no value is NaN or infinite; the sum shows both, and is quick."""
    if values.element_size() == 1:  # 8-bit floats have no arithmetic of their own
        values = values.float()
    total = values.sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(values.isfinite().all())


def _size(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape)) or 'a single number'


def _is_vit(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors have the names of a ViT, without anything before them."""
    return 'cls_token' in tensors or any(key.startswith('blocks.0.') for key in tensors)


def _convert_vit(
    tensors: dict[str, Tensor], vit: Any, family: str, has_biases: bool
) -> dict[str, Tensor]:
    """Convert tensors to the names and sizes of a ViT with timm's code, without a classifier.

    A patch embedding of another size is resampled so that it answers enlarged patches alike
    (FlexiViT, arXiv 2212.08013), a table of positions bicubically. So DINOv2 and EVA-02, trained
    with patches of 14 pixels, start networks with 16.
    """
    module: Any = vision_transformer if family == 'dinov2' else eva
    found: dict[str, Tensor] = module.checkpoint_filter_fn(tensors, vit)
    found = {key: value for key, value in found.items() if not key.startswith('head.')}
    if 'norm.weight' not in found:
        # timm's EVA-02 pools before its final norm and calls it so; there is but one.
        found = {key.replace('fc_norm.', 'norm.'): value for key, value in found.items()}
    if has_biases:
        return found
    zeros = {
        key: value.new_zeros(value.shape)
        for key, value in vit.state_dict().items()
        if key.endswith(('.q_bias', '.v_bias'))
    }
    return zeros | found
