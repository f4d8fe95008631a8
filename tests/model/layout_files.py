"""Networks with random weights, and their tensors named as other files name them."""

from __future__ import annotations

import json

import pytest
import torch

from videomt_ros.model import CheckpointError, build_network, load_model
from videomt_ros.model.layouts import DINOV2, DINOV3, PMT_DINOV2, PMT_DINOV3

_ORIGINALS = {
    ('videomt', 'dinov2'): DINOV2,
    ('videomt', 'dinov3'): DINOV3,
    ('pmt', 'dinov2'): PMT_DINOV2,
    ('pmt', 'dinov3'): PMT_DINOV3,
}
ENCODER = 'backbone.encoder.backbone.'


def build(config):
    """Build a network with random weights that are large enough to matter everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = build_network(config).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        for buffer in net.bn.buffers() if config.architecture == 'pmt' else ():
            torch.nn.init.uniform_(buffer, 0.2, 2.0)
    return net


def write_original(path, config):
    """Write a small file of the original's layout with zeros in tensors of any size."""
    layout = _ORIGINALS[config.architecture, config.family]
    with torch.device('meta'):
        targets = build_network(config).state_dict()
    state = {}
    for key, value in targets.items():
        names = layout.file_keys(key)
        first, *rest = value.shape
        for name in names:
            # One number, expanded to the shape of the tensor: only that one is written.
            state[name] = torch.zeros(1).expand(first // len(names), *rest)
    state[layout.query_blocks] = torch.ones(config.num_query_blocks)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'model': state}, path)


@torch.no_grad()
def outputs(net, clip):
    result = net(clip)
    return result.class_logits, result.mask_logits


def dinov2_names(net):
    """Name the tensors of a DINOv2 network as the original saves them."""
    state = {
        f'backbone.{key}'.replace('backbone.backbone.vit.', ENCODER): value
        for key, value in net.state_dict().items()
    }
    state['backbone.attn_mask_probs'] = torch.ones(net.config.num_query_blocks)
    state['criterion.empty_weight'] = torch.ones(net.config.num_classes + 1)
    return state


def dinov3_names(net):
    """Name the tensors of a DINOv3 network as the original saves them, with q, k and v apart."""
    return _dinov3_names(dinov2_names(net), start='')


def _dinov3_names(tensors, start):
    """Rename all tensors whose names have this start."""
    renamed = {}
    for key, value in tensors.items():
        if not key.startswith(start):
            renamed[key] = value
            continue
        for ours, theirs in (
            (ENCODER + 'cls_token', ENCODER + 'patch_embed.cls_token'),
            (ENCODER + 'reg_token', ENCODER + 'patch_embed.register_tokens'),
            ('patch_embed.proj', 'patch_embed.patch_embeddings'),
            ('attn.q_bias', 'attention.q_proj.bias'),
            ('attn.v_bias', 'attention.v_proj.bias'),
            ('attn.proj', 'attention.o_proj'),
            ('gamma_1', 'layer_scale1.lambda1'),
            ('gamma_2', 'layer_scale2.lambda1'),
            ('mlp.fc1', 'mlp.up_proj'),
            ('mlp.fc2', 'mlp.down_proj'),
        ):
            key = key.replace(ours, theirs)
        if key.endswith('attn.qkv.weight'):
            stem = key.removesuffix('attn.qkv.weight')
            for name, part in zip('qkv', value.chunk(3), strict=True):
                renamed[f'{stem}attention.{name}_proj.weight'] = part.clone()
        else:
            renamed[key] = value
    return renamed


def pmt_names(net):
    """Name the tensors of a network as the original code of PMT and LVMT saves them."""
    state = {}
    for key, value in net.state_dict().items():
        if key.startswith('backbone.vit.'):
            key = ENCODER + key.removeprefix('backbone.vit.')
        elif key.startswith('bn.'):
            key = f'backbone.{key}'
        else:
            key = f'backbone.decoder.{key}'
            if net.config.propagation == 'gru':
                key = key.replace('query_updater', 'query_gru')
        state[key] = value
    # The decoder has DINOv3's names whatever the encoder.
    everything = net.config.family == 'dinov3'
    state = _dinov3_names(state, start='backbone.' if everything else 'backbone.decoder.')
    for n in range(len(net.bn)):
        state[f'backbone.bn.{n}.num_batches_tracked'] = torch.tensor(80_000)
    state['backbone.encoder.pixel_mean'] = torch.zeros(1, 3, 1, 1)
    state['backbone.encoder.pixel_std'] = torch.ones(1, 3, 1, 1)
    state['backbone.decoder.attn_mask_probs'] = torch.ones(net.config.num_query_blocks)
    state['criterion.empty_weight'] = torch.ones(net.config.num_classes + 1)
    return state


def original_names(net):
    """Name the tensors of a network as its original code saves them."""
    if net.config.architecture == 'pmt':
        return pmt_names(net)
    return (dinov2_names if net.config.family == 'dinov2' else dinov3_names)(net)


def edit(name, change):
    """Make a function that changes a JSON file in a folder."""

    def apply(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(values)))

    return apply


def one_line(caught):
    message = str(caught.value)
    assert '\n' not in message
    return message


def assert_refused(path, fault):
    """Expect that a file or folder is refused, in one line with its name and the fault."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = one_line(caught)
    assert fault in message
    assert str(path) in message
