"""Settings of a network that the caller, the file, or neither of them gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.layout_files import build, dinov2_names, dinov3_names, edit, one_line
from videomt_ros.model import CheckpointError, load_model, save_model


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
    """VIPSeg and VSPW models, and those trained from them, would load as instances at 448."""
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
