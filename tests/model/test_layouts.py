"""Files of each layout: what is read from them, and which of their keys do not fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.model.layout_files import (
    ENCODER,
    assert_refused,
    build,
    dinov2_names,
    dinov3_names,
    edit,
    one_line,
    outputs,
    pmt_names,
    write_original,
)
from videomt_ros.model import CheckpointError, load_model, save_model
from videomt_ros.model.checkpoint import load_config
from videomt_ros.model.presets import load_preset


@pytest.mark.parametrize(('wrapped', 'zipped'), [(True, True), (False, False)])
def test_original_dinov2_file(tmp_path, net, clip, wrapped, zipped):
    state = dinov2_names(net)
    content = {'model': state, 'iteration': 7} if wrapped else state
    torch.save(content, tmp_path / 'mine.pth', _use_new_zipfile_serialization=zipped)
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2)
    assert not loaded.training
    assert loaded.config.name == 'mine'
    assert loaded.config.num_query_blocks == net.config.num_query_blocks
    assert loaded.config.table_size == net.config.table_size
    for ours, theirs in zip(outputs(net, clip), outputs(loaded, clip), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_original_dinov3_file_equals_transformers_layers(tmp_path, tiny_config, clip):
    """The original runs DINOv3 with layers of transformers, and so does this reference."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = replace(tiny_config, family='dinov3', norm_queries=True)
    net = build(config)
    their_config = DINOv3ViTConfig(
        hidden_size=config.embed_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=4 * config.embed_dim,
        num_register_tokens=4,
        patch_size=config.patch_size,
    )
    reference = DINOv3ViTModel(their_config).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    # Encoder from the reference, heads from ours.
    state = {key: value for key, value in dinov3_names(net).items() if not key.startswith(ENCODER)}
    for key, value in reference.state_dict().items():
        if not key.endswith('mask_token'):  # the original deletes it
            key = key.replace('embeddings.', 'patch_embed.', 1) if 'patch' not in key else key
            key = key.replace('embeddings.patch_embeddings', 'patch_embed.patch_embeddings')
            state[ENCODER + key.replace('model.layer.', 'blocks.')] = value
    torch.save({'model': state}, tmp_path / 'mine.pth')
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2, norm_queries=True)
    assert loaded.config.family == 'dinov3'

    queries = loaded.q.weight[None]
    num_queries = config.num_queries
    for t in range(clip.shape[1]):
        with torch.no_grad():
            tokens = reference.embeddings(clip[:, t])
            rope = reference.rope_embeddings(clip[:, t])
            for index, layer in enumerate(reference.model.layer):
                if index == config.depth - config.num_query_blocks:
                    tokens = torch.cat([queries, tokens], dim=1)
                tokens = layer(tokens, position_embeddings=rope)
            normed = reference.norm(tokens)[:, :num_queries]
            class_logits = loaded.class_head(normed)
            queries = loaded.query_updater(normed) + loaded.q.weight
        found = outputs(loaded, clip)[0][:, t]
        torch.testing.assert_close(found, class_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize('size', ['1GB', '20KB'])
def test_transformers_folder_equals_transformers(port, clip, tmp_path, size):
    port.save_pretrained(tmp_path / 'port', max_shard_size=size)
    assert (tmp_path / 'port' / 'model.safetensors').exists() == (size == '1GB')
    loaded = load_model(tmp_path / 'port')
    assert loaded.config.class_names == ('circle', 'square', 'sky')
    assert loaded.config.name == 'port'
    with torch.no_grad():
        theirs = port(pixel_values_videos=clip)
    class_logits, mask_logits = outputs(loaded, clip)
    assert (class_logits[0] - theirs.class_queries_logits).abs().max() < 1e-4
    assert (mask_logits[0] - theirs.masks_queries_logits).abs().max() < 1e-4


@pytest.mark.parametrize(
    ('family', 'propagation'), [('dinov2', 'fusion'), ('dinov3', 'gru'), ('eva02', 'none')]
)
def test_own_file_is_exact(tmp_path, tiny_config, clip, family, propagation):
    net = build(replace(tiny_config, family=family, propagation=propagation, mlp_ratio=2.0))
    save_model(net, tmp_path / 'mine.safetensors')
    assert [path.name for path in tmp_path.iterdir()] == ['mine.safetensors']
    loaded = load_model(str(tmp_path / 'mine.safetensors'))
    assert loaded.config == net.config == load_config(tmp_path / 'mine.safetensors')
    for key, value in net.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    for ours, theirs in zip(outputs(net, clip), outputs(loaded, clip), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('name', ['query_updater', 'query_gru'])
def test_a_recurrent_updater_is_recognised(tmp_path, tiny_config, name):
    net = build(replace(tiny_config, propagation='gru'))
    state = {key.replace('query_updater', name): v for key, v in dinov2_names(net).items()}
    torch.save(state, tmp_path / 'mine.pth')
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2)
    assert loaded.config.propagation == 'gru'
    assert torch.equal(loaded.query_updater.weight_hh, net.query_updater.weight_hh)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
@pytest.mark.parametrize('propagation', ['fusion', 'gru'])
def test_original_pmt_file(tmp_path, tiny_config, clip, family, propagation):
    changes = {'depth': 4, 'num_query_blocks': 6, 'decoder_mlp_ratio': 1.5}
    config = replace(
        tiny_config, architecture='pmt', family=family, propagation=propagation, **changes
    )
    net = build(config)
    torch.save({'model': pmt_names(net)}, tmp_path / 'mine.pth')
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2)
    read = ('architecture', 'family', 'propagation', 'num_queries', 'num_classes', *changes)
    assert [getattr(loaded.config, name) for name in read] == [
        getattr(config, name) for name in read
    ]
    assert loaded.config.taps == (0, 1, 2, 3)
    for ours, theirs in zip(outputs(net, clip), outputs(loaded, clip), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize('family', ['dinov2', 'dinov3'])
def test_tensors_of_a_recurrent_updater_have_the_names_of_the_file(tmp_path, tiny_config, family):
    net = build(replace(tiny_config, architecture='pmt', family=family, propagation='gru'))
    tensors = {key: value for key, value in pmt_names(net).items() if 'query_gru' not in key}
    torch.save({'model': tensors}, tmp_path / 'mine.pth')
    with pytest.raises(
        CheckpointError, match=r'missing \(4\): backbone.decoder.query_gru.weight_'
    ):
        load_model(tmp_path / 'mine.pth', num_heads=2, propagation='gru')


def test_variances_below_zero_are_named(tmp_path, tiny_config):
    tensors = pmt_names(build(replace(tiny_config, architecture='pmt')))
    tensors['backbone.bn.1.running_var'][3] = -0.5
    torch.save({'model': tensors}, tmp_path / 'mine.pth')
    with pytest.raises(CheckpointError, match=r'below 0 \(1\): backbone.bn.1.running_var\.'):
        load_model(tmp_path / 'mine.pth', num_heads=2)


@pytest.mark.parametrize(('given', 'taps'), [({}, (0, 2)), ({'tap_blocks': (1, 2)}, (1, 2))])
def test_the_number_of_tapped_blocks_is_read_from_the_tensors(tmp_path, tiny_config, given, taps):
    config = replace(tiny_config, architecture='pmt', tap_blocks=(1, 2))
    torch.save({'model': pmt_names(build(config))}, tmp_path / 'mine.pth')
    assert load_model(tmp_path / 'mine.pth', num_heads=2, **given).config.taps == taps


@pytest.mark.parametrize('level', range(4))
def test_a_file_that_lacks_one_tapped_block_names_its_tensors(tmp_path, caplog, level):
    """A file downloaded by hand, whose name tells the published model."""
    preset = load_preset('lvmt-dinov3-small-ovis')
    path = tmp_path / Path(preset.file).name
    write_original(path, replace(preset.config(), depth=4, num_query_blocks=1))
    tensors = torch.load(path, weights_only=True)['model']
    gone = [key for key in tensors if re.search(rf'(bn|projections|scalers)\.{level}(\.|$)', key)]
    assert len(gone) == 9
    for key in gone:
        del tensors[key]
    torch.save({'model': tensors}, path)
    with pytest.raises(CheckpointError, match=r'missing \(9\)') as caught:
        load_model(path)
    assert all(key in str(caught.value) for key in gone)
    # Under another name, nothing but the number of levels tells; one between others is missed.
    other = path.rename(tmp_path / 'mine.pth')
    if level < 3:
        with pytest.raises(CheckpointError, match=r'missing \(9\)'):
            load_model(other, num_heads=6, norm_queries=False)
    else:
        load_model(other, num_heads=6, norm_queries=False)
        assert 'tensors for 3 tapped blocks, where the published models have 4' in caplog.text


def test_weights_of_another_architecture_than_the_preset_are_refused(tmp_path, tiny_config):
    path = tmp_path / 'vspw_dinov3_94.4_64.0.pth'  # a file of VidEoMT
    net = build(replace(tiny_config, architecture='pmt', family='dinov3'))
    torch.save({'model': pmt_names(net)}, path)
    assert_refused(path, 'architecture = videomt')


def test_every_missing_unknown_and_misshapen_key_is_named_at_once(breakable):
    tensors, load = breakable
    keys = sorted(key for key in tensors if 'norm' in key or 'mask_head' in key)
    gone, bent = keys[:3], keys[3:5]
    expected = {key: ' x '.join(map(str, tensors[key].shape)) for key in bent}
    for key in gone:
        del tensors[key]
    for key in bent:
        tensors[key] = torch.zeros(5, 2)
    tensors['extra.one'] = torch.zeros(1)
    tensors['backbone.extra.two'] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load()
    message = one_line(caught)
    assert 'missing (3)' in message
    assert 'unknown (2)' in message
    assert 'misshapen (2)' in message
    for key in (*gone, 'extra.one', 'backbone.extra.two'):
        assert key in message
    for key in bent:
        assert f'{key} (expected {expected[key]}, got 5 x 2)' in message


def test_any_one_missing_tensor_is_named(breakable):
    """The missing tensors are those that sizes are read from, above all."""
    tensors, load = breakable
    read = re.compile(
        r'cls_token|proj(ection)?\.weight|pos|\.0\.mlp\.(fc1|up_proj)|q\.weight|query|class_'
        r'|mask_head\.(0|fc1)|bn\.|lateral|scalers'
    )
    later = re.compile(r'blocks\.[12]\.|layers\.[12]\.|batches_tracked|attn_mask_probs')
    for key in [key for key in tensors if read.search(key) and not later.search(key)]:
        value = tensors.pop(key)
        with pytest.raises(CheckpointError) as caught:
            load()
        assert f'missing (1): {key}.' in one_line(caught)
        tensors[key] = value
    load()


def test_weights_that_are_no_numbers_are_named(breakable):
    tensors, load = breakable
    keys = [key for key in tensors if key.endswith(('mlp.fc1.bias', 'up_proj.bias'))][:2]
    tensors[keys[0]][3] = float('nan')
    tensors[keys[1]][3] = float('inf')
    with pytest.raises(CheckpointError) as caught:
        load()
    assert f'not finite numbers (2): {", ".join(sorted(keys))}.' in one_line(caught)


def test_weights_of_another_type_are_named_with_it(breakable):
    tensors, load = breakable
    keys = [key for key in tensors if key.endswith(('mlp.fc1.bias', 'up_proj.bias'))]
    tensors[keys[0]] = torch.zeros_like(tensors[keys[0]], dtype=torch.int64)
    tensors[keys[1]] = torch.zeros_like(tensors[keys[1]], dtype=torch.bool)
    with pytest.raises(CheckpointError) as caught:
        load()
    message = one_line(caught)
    assert 'of a type that is no floating-point number (2)' in message
    assert f'{keys[0]} (int64)' in message
    assert f'{keys[1]} (bool)' in message
    assert 'not finite' not in message


def test_a_stray_block_does_not_make_a_huge_network(breakable):
    tensors, load = breakable
    key = next(key for key in tensors if key.endswith('.2.norm1.weight'))
    stray = key.replace('.2.norm1', '.4000.norm1')
    tensors[stray] = tensors[key].clone()
    with pytest.raises(CheckpointError) as caught:
        load()
    message = one_line(caught)
    if key.startswith('backbone.vit.'):  # our own record tells the depth
        assert f'unknown (1): {stray}' in message
    else:
        stem = key.removesuffix('2.norm1.weight')
        assert f'without a gap, got {stem}4000 but no {stem}3.' in message


def test_a_key_of_the_original_is_just_unknown_in_our_own_file(tmp_path, net, tiny_config):
    tensors = net.state_dict() | {'backbone.query_gru.weight_ih': torch.zeros(2)}
    metadata = {'format': 'videomt_ros', 'version': '1'}
    metadata['config'] = json.dumps(tiny_config.to_dict())
    save_file(tensors, tmp_path / 'mine.safetensors', metadata)
    with pytest.raises(CheckpointError, match=r'network: unknown \(1\): backbone.query_gru'):
        load_model(tmp_path / 'mine.safetensors')


BAD_CONFIGS = {
    'other model': (
        edit('config.json', lambda c: c | {'model_type': 'eomt'}),
        "expected model_type 'videomt', got 'eomt'",
    ),
    'no type': (edit('config.json', lambda c: {}), "expected model_type 'videomt', got None"),
    'no heads': (
        edit('config.json', lambda c: {k: c[k] for k in c if k != 'num_attention_heads'}),
        'missing fields: num_attention_heads',
    ),
    'other activation': (
        edit('config.json', lambda c: c | {'hidden_act': 'relu'}),
        'expected hidden_act to be gelu, got relu',
    ),
    'text for a number': (
        edit('config.json', lambda c: c | {'patch_size': 'big'}),
        "expected patch_size to be one whole number, got 'big'",
    ),
    'a fraction for a whole number': (
        edit('config.json', lambda c: c | {'hidden_size': 32.0}),
        'expected hidden_size to be one whole number, got 32.0',
    ),
    'lists for a number': (
        edit('config.json', lambda c: c | {'image_size': [[64], [32]]}),
        'expected image_size to be one whole number, got [[64], [32]]',
    ),
    'no depth': (
        edit('config.json', lambda c: c | {'num_hidden_layers': 0}),
        'Expected depth to be at least 1, got 0',
    ),
    'other width': (
        edit('config.json', lambda c: c | {'hidden_size': 64}),
        'query.weight (expected 6 x 64, got 6 x 32)',
    ),
    'other classes': (
        edit('config.json', lambda c: c | {'id2label': {'0': 'a'}}),
        'class_predictor.bias (expected 2, got 4)',
    ),
}


@pytest.mark.parametrize('kind', BAD_CONFIGS)
def test_a_config_json_that_does_not_fit_says_what_is_wrong(folder, kind):
    change, fault = BAD_CONFIGS[kind]
    change(folder)
    assert_refused(folder, fault)


@pytest.mark.parametrize('model_type', ['videomt', 'eomt'])
def test_config_json_counts_beside_keys_of_the_original(folder, net, model_type):
    """It states what the tensors do not, such as the heads, and which network this is."""
    save_file(dinov2_names(net), folder / 'model.safetensors', {'format': 'pt'})
    edit('config.json', lambda c: c | {'model_type': model_type, 'num_attention_heads': 4})(folder)
    if model_type == 'videomt':
        config = load_config(folder)
        assert (config.num_heads, config.class_names) == (4, ('circle', 'square', 'sky'))
    else:
        with pytest.raises(CheckpointError, match="expected model_type 'videomt', got 'eomt'"):
            load_config(folder)


def test_a_folder_with_unknown_keys_says_which_were_expected(folder):
    save_file({'encoder.weight': torch.zeros(2)}, folder / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(
        CheckpointError, match='weights of VidEoMT, PMT or LVMT .*, got encoder.weight'
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ('metadata', 'fault'),
    [
        ({'version': '2'}, "version '2'"),
        ({'config': 'no json'}, "its configuration can't be used"),
        ({'config': '{}'}, 'needs num_classes'),
        ({'config': '{"num_classes": 3, "colour": 1}'}, 'Unknown settings of a network: colour'),
        ({'config': '{"num_classes": "3"}'}, "its configuration can't be used"),
        ({'config': '{"num_classes": 3.0}'}, 'num_classes to be a whole number, got 3.0'),
        ({'config': '{"num_classes": 3, "test_size": 0}'}, 'test_size to be at least 1, got 0'),
        ({'config': '{"num_classes": 3, "pixel_std": 1}'}, 'pixel_std to be a list, got 1'),
        ({'config': '{"num_classes": 3, "class_names": "cat"}'}, "a list, got 'cat'"),
        ({'config': '[1]'}, "its configuration can't be used"),
        ({'format': 'another'}, 'expected weights of VidEoMT, PMT or LVMT'),
    ],
)
def test_an_own_file_with_a_bad_record_says_what_is_wrong(tmp_path, net, metadata, fault):
    path = tmp_path / 'mine.safetensors'
    good = {'format': 'videomt_ros', 'version': '1', 'config': json.dumps(net.config.to_dict())}
    save_file(net.state_dict(), path, good | metadata)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert fault in one_line(caught)
