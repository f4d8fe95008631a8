"""Networks with random weights, and their tensors named as other files name them."""

from __future__ import annotations

import json

import pytest
import torch

from videomt_ros.model import CheckpointError, VidEoMT, load_model

ENCODER = 'backbone.encoder.backbone.'


def build(config):
    """Build a network with random weights that are large enough to matter everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = VidEoMT(config).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net


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
    renamed = {}
    for key, value in dinov2_names(net).items():
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
