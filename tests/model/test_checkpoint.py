"""Files of each layout, written here, loaded, and broken on purpose."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from videomt_ros.model import CheckpointError, VidEoMT, load_model, save_model
from videomt_ros.model.checkpoint import load_config

ENCODER = 'backbone.encoder.backbone.'


def build(config):
    """A network with random weights that are large enough to matter everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = VidEoMT(config).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture
def net(tiny_config):
    return build(tiny_config)


@pytest.fixture
def clip():
    return torch.randn(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def outputs(net, clip):
    result = net(clip)
    return result.class_logits, result.mask_logits


def dinov2_names(net):
    """State of a DINOv2 network as the original saves it."""
    state = {
        f'backbone.{key}'.replace('backbone.backbone.vit.', ENCODER): value
        for key, value in net.state_dict().items()
    }
    state['backbone.attn_mask_probs'] = torch.ones(net.config.num_query_blocks)
    state['criterion.empty_weight'] = torch.ones(net.config.num_classes + 1)
    return state


def dinov3_names(net):
    """State of a DINOv3 network as the original saves it; q, k and v are apart."""
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


def one_line(caught):
    message = str(caught.value)
    assert '\n' not in message
    return message


# -- what loads ------------------------------------------------------------------------------


@pytest.mark.parametrize('wrapped', [True, False])
@pytest.mark.parametrize('zipped', [True, False])
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
    """The original runs DINOv3 with transformers' layers; so does this reference."""
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


@pytest.fixture(scope='module')
def port():
    """The network of transformers, tiny, with random weights."""
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    config = VideomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=2,
        num_queries=6,
        id2label={0: 'circle', 1: 'square', 2: 'sky'},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = VideomtForUniversalSegmentation(config).eval()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture
def folder(port, tmp_path):
    port.save_pretrained(tmp_path / 'port')
    return tmp_path / 'port'


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


def test_the_file_in_a_transformers_folder_stands_for_the_folder(folder):
    net = load_model(folder / 'model.safetensors')
    assert net.config.class_names == ('circle', 'square', 'sky')


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
@pytest.mark.parametrize('propagation', ['fusion', 'gru', 'none'])
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


def test_half_precision_on_disk_loads_as_float32(tmp_path, net):
    save_model(net, tmp_path / 'full.safetensors')
    save_model(net, tmp_path / 'half.safetensors', torch.float16)
    sizes = [(tmp_path / f'{n}.safetensors').stat().st_size for n in ('full', 'half')]
    assert sizes[1] < 0.6 * sizes[0]
    for key, value in load_model(tmp_path / 'half.safetensors').state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, net.state_dict()[key].half().float())
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize('name', ['query_updater', 'query_gru'])
def test_a_recurrent_updater_is_recognised(tmp_path, tiny_config, name):
    net = build(replace(tiny_config, propagation='gru'))
    state = {key.replace('query_updater', name): v for key, v in dinov2_names(net).items()}
    torch.save(state, tmp_path / 'mine.pth')
    loaded = load_model(tmp_path / 'mine.pth', num_heads=2)
    assert loaded.config.propagation == 'gru'
    assert torch.equal(loaded.query_updater.weight_hh, net.query_updater.weight_hh)


def test_a_local_path_wins_over_a_hub_name(net, tmp_path, monkeypatch):
    (tmp_path / 'owner').mkdir()
    torch.save(dinov2_names(net), tmp_path / 'owner' / 'name')
    monkeypatch.chdir(tmp_path)
    assert load_model('owner/name', num_heads=2).config.name == 'name'


# -- settings --------------------------------------------------------------------------------


def test_overrides_replace_settings(folder):
    names = ('a', 'b', 'c')
    net = load_model(folder, test_size=640, class_names=names, size_divisor=64, name='x')
    config = net.config
    assert (config.test_size, config.class_names, config.size_divisor) == (640, names, 64)
    assert config.name == 'x'


def test_new_class_names_keep_the_split_into_things_and_stuff(tmp_path, net):
    save_model(net, tmp_path / 'mine.safetensors')
    config = load_model(tmp_path / 'mine.safetensors', class_names=('a', 'b', 'c')).config
    assert config.class_names == ('a', 'b', 'c')
    assert config.thing_classes == net.config.thing_classes == (True, True, False)


def test_an_unknown_override_is_named(folder):
    with pytest.raises(
        ValueError, match='Unknown settings of a network: tast_size. Expected'
    ) as e:
        load_model(folder, tast_size=640)
    one_line(e)


@pytest.mark.parametrize('override', [{'patch_size': 0}, {'task': 'x'}, {'class_names': ['a']}])
def test_an_override_out_of_range_is_named(folder, override):
    with pytest.raises(ValueError, match=next(iter(override))) as caught:
        load_model(folder, **override)
    one_line(caught)


def test_a_fault_of_the_file_is_not_blamed_on_the_caller(folder):
    edit('config.json', lambda c: c | {'num_blocks': 9})(folder)
    with pytest.raises(CheckpointError, match='num_query_blocks from 1 to depth = 3, got 9'):
        load_model(folder, name='x')
    edit('config.json', lambda c: c | {'num_blocks': 2})(folder)
    with pytest.raises(ValueError, match='num_query_blocks from 1') as caught:
        load_model(folder, num_query_blocks=9)
    assert not isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize(
    ('override', 'fault'),
    [
        ({'num_queries': 7}, 'query.weight (expected 7 x 32, got 6 x 32)'),
        ({'num_classes': 5}, 'class_predictor.weight (expected 6 x 32, got 4 x 32)'),
        ({'num_query_blocks': 1}, 'attn_mask_probs (expected 1, got 2)'),
        ({'depth': 4}, 'layers.3.attention.q_proj.weight'),
        ({'propagation': 'none'}, 'unknown (2): query_updater.bias, query_updater.weight'),
        ({'table_size': 32}, 'embeddings.position_embeddings.weight (expected 4 x 32, got 16'),
    ],
)
def test_an_override_that_contradicts_the_tensors_names_their_shapes(folder, override, fault):
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, **override)
    assert fault in one_line(caught)


@pytest.mark.parametrize(
    ('family', 'drop', 'given', 'asked'),
    [
        ('dinov2', '', {}, 'num_heads'),
        ('dinov2', 'query_updater', {'num_heads': 2}, 'propagation'),
        ('dinov2', 'attn_mask_probs', {'num_heads': 2}, 'num_query_blocks'),
        ('dinov3', '', {'num_heads': 2}, 'norm_queries'),
    ],
)
def test_what_tensors_do_not_tell_is_asked_for(tmp_path, tiny_config, family, drop, given, asked):
    net = build(replace(tiny_config, family=family))
    names = dinov3_names if family == 'dinov3' else dinov2_names
    state = {key: value for key, value in names(net).items() if not drop or drop not in key}
    torch.save(state, tmp_path / 'mine.pth')
    with pytest.raises(CheckpointError, match=f'do not tell {asked}; give them') as caught:
        load_model(tmp_path / 'mine.pth', **given)
    one_line(caught)
    answer = {'num_heads': 2, 'propagation': 'query', 'num_query_blocks': 2, 'norm_queries': False}
    load_model(tmp_path / 'mine.pth', **given, **{asked: answer[asked]})


def test_class_names_that_nobody_gave(tmp_path, tiny_config, caplog):
    for count, names in ((3, None), (25, 'Person'), (40, None)):
        config = replace(tiny_config, num_classes=count, class_names=(), thing_classes=())
        torch.save(dinov2_names(build(config)), tmp_path / 'mine.pth')
        caplog.clear()
        loaded = load_model(tmp_path / 'mine.pth', num_heads=2).config
        assert loaded.class_names[0] == (names or 'class_0')
        assert ('class_names=' in caplog.text) == (names is None)
        assert ('videomt-dinov2-small-ytvis2019' in caplog.text) == (count == 40)


def test_what_may_hold_stuff_is_asked_for_its_task_and_size(tmp_path, tiny_config):
    """VIPSeg and VSPW, or what was trained further from them, would load as instances at 448."""
    path = tmp_path / 'mine.pth'
    for changes in (
        {'num_classes': 124, 'class_names': (), 'thing_classes': ()},
        {'table_size': 1280},
    ):
        torch.save(dinov2_names(build(replace(tiny_config, **changes))), path)
        with pytest.raises(CheckpointError) as caught:
            load_model(path, num_heads=2)
        assert 'do not tell task, test_size; give them' in one_line(caught)
        assert 'load_model(..., task=..., test_size=...)' in one_line(caught)
        with pytest.raises(CheckpointError, match='do not tell test_size; give'):
            load_model(path, num_heads=2, task='semantic')
        config = load_model(path, num_heads=2, task='semantic', test_size=720).config
        assert (config.task, config.test_size) == ('semantic', 720)
    torch.save(dinov2_names(build(tiny_config)), path)
    load_model(path, num_heads=2)
    with pytest.raises(CheckpointError, match='do not tell task, test_size; give'):
        load_model(path, num_heads=2, thing_classes=(True, False, True))


def test_a_folder_with_the_names_of_vspw_is_asked_for_its_task_and_size(folder, tmp_path):
    from videomt_ros.labels import load_classes

    vspw = load_classes('vspw')
    edit('config.json', lambda c: c | {'id2label': dict(enumerate(vspw.class_names))})(folder)
    tensors = load_file(folder / 'model.safetensors')
    tensors['class_predictor.weight'] = torch.zeros(125, 32)
    tensors['class_predictor.bias'] = torch.zeros(125)
    tensors['criterion.empty_weight'] = torch.ones(125)
    save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(CheckpointError, match='do not tell task, test_size; give'):
        load_model(folder)
    config = load_model(folder, task='semantic', test_size=720).config
    assert config.thing_classes == vspw.thing_classes


@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'eva02'])
def test_a_loaded_network_is_a_built_one(tmp_path, tiny_config, clip, family):
    """Loading skips the random start; what no file holds must be there all the same."""
    config = replace(tiny_config, family=family)
    net = build(config)
    save_model(net, tmp_path / 'mine.safetensors')
    loaded = load_model(tmp_path / 'mine.safetensors')
    built = VidEoMT(config).eval()
    built.load_state_dict(net.state_dict())
    for kind in ('named_parameters', 'named_buffers'):
        expected, found = dict(getattr(built, kind)()), dict(getattr(loaded, kind)())
        assert list(expected) == list(found)
        for key, value in expected.items():
            assert torch.equal(value, found[key]), key
            assert value.requires_grad == found[key].requires_grad
    for ours, theirs in zip(outputs(built, clip), outputs(loaded, clip), strict=True):
        assert torch.equal(ours, theirs)
    loaded.half().float()  # timm restores the angles after each change of type
    loaded.train()(clip).mask_logits.sum().backward()


def test_a_loaded_network_does_not_need_its_file_any_more(tmp_path, net, clip):
    path = tmp_path / 'mine.pth'
    torch.save(dinov2_names(net), path)
    loaded = load_model(path, num_heads=2)
    path.write_bytes(b'another')
    for ours, theirs in zip(outputs(net, clip), outputs(loaded, clip), strict=True):
        assert torch.equal(ours, theirs)


# -- what does not load ----------------------------------------------------------------------


@pytest.fixture(params=['original DINOv2', 'original DINOv3', 'transformers', 'own'])
def breakable(request, tmp_path, tiny_config):
    """A file of each layout: its tensors, and a function that saves them again and loads."""
    layout = request.param
    if layout == 'transformers':
        folder = request.getfixturevalue('folder')
        tensors = load_file(folder / 'model.safetensors')

        def load():
            save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
            return load_model(folder)
    elif layout == 'own':
        save_model(build(tiny_config), tmp_path / 'mine.safetensors')
        tensors = load_file(tmp_path / 'mine.safetensors')

        def load():
            config = json.dumps(tiny_config.to_dict())
            metadata = {'format': 'videomt_ros', 'version': '1', 'config': config}
            save_file(tensors, tmp_path / 'mine.safetensors', metadata)
            return load_model(tmp_path / 'mine.safetensors')
    else:
        family = layout.removeprefix('original ').lower()
        net = build(replace(tiny_config, family=family))
        tensors = (dinov2_names if family == 'dinov2' else dinov3_names)(net)

        def load():
            torch.save({'model': tensors}, tmp_path / 'mine.pth')
            return load_model(tmp_path / 'mine.pth', num_heads=2, norm_queries=False)

    load()
    return tensors, load


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
    """Above all those that sizes are read from."""
    tensors, load = breakable
    read = re.compile(
        r'cls_token|proj(ection)?\.weight|pos|\.0\.mlp\.(fc1|up_proj)|q\.weight|query|class_'
        r'|mask_head\.(0|fc1)'
    )
    for key in [key for key in tensors if read.search(key) and not re.search(r'\.[12]\.', key)]:
        value = tensors.pop(key)
        with pytest.raises(CheckpointError) as caught:
            load()
        assert f'missing (1): {key}.' in one_line(caught)
        tensors[key] = value
    load()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_named(breakable, value):
    tensors, load = breakable
    key = next(key for key in tensors if key.endswith('mlp.fc1.bias') or 'up_proj.bias' in key)
    tensors[key][3] = value
    with pytest.raises(CheckpointError, match='not finite numbers') as caught:
        load()
    assert key in one_line(caught)


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


def test_a_damaged_table_of_contents_says_so(tmp_path, net):
    path = tmp_path / 'mine.pth'
    torch.save(dinov2_names(net), path)
    path.write_bytes(path.read_bytes().replace(b'PK\x01\x02', b'XXXX', 1))
    with pytest.raises(CheckpointError, match=r'damaged .*Download it again') as caught:
        load_model(path, num_heads=2)
    assert str(path) in one_line(caught)


def text(content):
    return lambda path: path.write_bytes(content)


def other_zip(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'hello')


def saved(content, **options):
    return lambda path: torch.save(content, path, **options)


def cut(path, keep):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


NO_WEIGHTS = {
    'empty': (text(b''), 'the file is empty'),
    'text': (text(b'hello there, no weights here'), "got text that starts with 'hello there"),
    'html': (text(b'\n<!DOCTYPE html><html></html>'), 'got an HTML page'),
    'lfs': (text(b'version https://git-lfs.github.com/spec/v1\n'), 'git lfs pull'),
    'png': (text(b'\x89PNG\r\n\x1a\n' + bytes(64)), 'got a PNG image'),
    'jpeg': (text(b'\xff\xd8\xff\xe0' + bytes(64)), 'got a JPEG image'),
    'gzip': (text(b'\x1f\x8b\x08' + bytes(64)), 'gzip archive'),
    'zeros': (text(bytes(300)), 'bytes 00 00 00'),
    'json': (text(b'{"a": 1, "b": {"c": 2}}'), 'got text that starts with'),
    'zip': (other_zip, 'a zip archive of 1 other files'),
    'list': (saved([1, 2]), 'got list'),
    'nothing': (saved({'model': {}}), 'got nothing'),
    'numbers': (saved({'model': {'a.b': 3, 'c.d': torch.ones(1)}}), 'these are none: a.b'),
    'other network': (saved({'conv1.weight': torch.ones(1)}), 'got conv1.weight'),
    'broken pickle': (text(b'\x80\x02garbage' + bytes(64)), 'damaged or of another kind'),
    'broken header': (text((20).to_bytes(8, 'little') + b'{"a": nonsense, 123}'), 'damaged'),
}


@pytest.mark.parametrize('kind', NO_WEIGHTS)
def test_a_file_of_another_kind_says_what_it_is(tmp_path, kind):
    write, fault = NO_WEIGHTS[kind]
    path = tmp_path / 'mine.pth'
    write(path)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = one_line(caught)
    assert fault in message
    assert str(path) in message


@pytest.mark.parametrize('keep', [0.02, 0.5, 0.99])
@pytest.mark.parametrize('kind', ['zip', 'pickle', 'own', 'transformers'])
def test_a_truncated_file_says_so(tmp_path, net, folder, kind, keep):
    path = tmp_path / 'mine.file'
    if kind == 'own':
        path = path.with_suffix('.safetensors')
        save_model(net, path)
    elif kind == 'transformers':
        path = folder / 'model.safetensors'
    else:
        zipped = kind == 'zip'
        torch.save(dinov2_names(net), path, _use_new_zipfile_serialization=zipped)
    cut(path, keep)
    with pytest.raises(CheckpointError, match='Download it again') as caught:
        load_model(folder if kind == 'transformers' else path, num_heads=2)
    assert str(path) in one_line(caught)


class Payload:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('kind', ['zip', 'old', 'bare'])
def test_nothing_in_a_file_is_executed(tmp_path, net, kind):
    mark, path = tmp_path / 'executed', tmp_path / 'mine.pth'
    content = {'model': dinov2_names(net), 'hook': Payload(mark)}
    if kind == 'bare':
        path.write_bytes(pickle.dumps(content['hook'], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = one_line(caught)
    assert not mark.exists()
    assert kind == 'bare' or 'posix.system' in message


def edit(name, change):
    """A change of a JSON file in a folder."""

    def apply(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(values)))

    return apply


INDEX = 'model.safetensors.index.json'
BAD_FOLDERS = {
    'no config': (lambda f: (f / 'config.json').unlink(), 'config.json is missing'),
    'no json': (lambda f: (f / 'config.json').write_text('{'), "can't be read as JSON"),
    'a list': (lambda f: (f / 'config.json').write_text('[]'), 'expected an object, got list'),
    'no weights': (lambda f: (f / 'model.safetensors').unlink(), 'missing: model.safetensors'),
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
    'no shard': (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        'missing: model-1.safetensors',
    ),
    'a shard elsewhere': (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "../port/model.safetensors"}}'),
        'expected a weight_map of file names',
    ),
    'no map': (lambda f: (f / INDEX).write_text('{}'), 'expected a weight_map of file names'),
}


@pytest.mark.parametrize('kind', BAD_FOLDERS)
def test_a_damaged_folder_says_what_is_wrong(folder, kind):
    change, fault = BAD_FOLDERS[kind]
    change(folder)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = one_line(caught)
    assert fault in message
    assert str(folder) in message


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
        ({'format': 'another'}, 'expected weights of VidEoMT'),
    ],
)
def test_an_own_file_with_a_bad_record_says_what_is_wrong(tmp_path, net, metadata, fault):
    path = tmp_path / 'mine.safetensors'
    good = {'format': 'videomt_ros', 'version': '1', 'config': json.dumps(net.config.to_dict())}
    save_file(net.state_dict(), path, good | metadata)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert fault in one_line(caught)


@pytest.mark.parametrize(
    ('source', 'fault'),
    [
        ('./no/such.pth', 'no such file or folder'),
        ('such.safetensors', 'no such file or folder'),
        ('a/b/c', 'no such file or folder'),
        (Path('demo'), 'no such file or folder'),
        ('videomt-dinov2-smal-ytvis2019', 'Nearest: videomt-dinov2-small-ytvis2019'),
        ('resnet', '`videomt models` lists them all'),
        ('out/train', 'There is no file or folder out/train here either.'),
    ],
)
def test_a_source_that_is_not_there(source, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_model(source)
    assert fault in one_line(caught)


# -- saving ----------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_the_old_file(tmp_path, net):
    path = tmp_path / 'mine.safetensors'
    save_model(net, path)
    before = path.read_bytes()
    with torch.no_grad():
        net.class_head.bias[0] = 1e6  # finite, but not in half precision
    with pytest.raises(ValueError, match='not: class_head.bias'):
        save_model(net, path, torch.float16)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r'ends in \.safetensors, got .*mine\.pth'):
        save_model(net, tmp_path / 'mine.pth')


def test_a_saved_file_outlasts_a_power_cut(tmp_path, net, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda handle: synced.append(handle))
    save_model(net, tmp_path / 'mine.safetensors')
    assert len(synced) == 2  # the file and its folder
