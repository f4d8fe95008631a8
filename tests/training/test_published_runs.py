"""The run files of the published models: what they say, and a step of each on a small copy.

The copies have the folders, categories and numbers of the real data sets, but drawn scenes.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.labelled_data import write_coco, write_labelled
from videomt_ros.datasets.dataset import Category
from videomt_ros.labels import load_classes
from videomt_ros.model import build_network, load_model
from videomt_ros.model.backbone import timm_name
from videomt_ros.model.presets import load_preset, preset_names
from videomt_ros.training.initial import load_initial
from videomt_ros.training.labelled_clips import class_table
from videomt_ros.training.optimiser import parameter_groups
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.trainer import train

ROOT = Path(__file__).parents[2]
SIZES = {'small': 'vits', 'base': 'vitb', 'large': 'vitl'}
COCO = [
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
    'teddy bear', 'hair drier', 'toothbrush',
]  # fmt: skip
"""The 80 categories of COCO; the six shapes of scenes stand for the first six."""


def run_file(preset: str) -> Path:
    """Return the path of the run file of a published model.

    The sizes and families of PMT and LVMT on one data set share a file.
    """
    kind, family, size, data = preset.split('-')
    if kind != 'videomt':
        return ROOT / 'config' / f'train_{kind}_{data}.yaml'
    suffix = '' if family == 'dinov2' else f'_{family}'
    return ROOT / 'config' / f'train_{data}_{SIZES[size]}{suffix}.yaml'


PUBLISHED = [name for name in preset_names() if load_preset(name).path is None]
PRESET_OF = {
    run_file(name): name
    for name in PUBLISHED
    if name.startswith(('videomt-', 'lvmt-dinov3-large-', 'pmt-dinov3-large-'))
}
"""Run files and the models that they name."""
RUN_FILES = pytest.mark.parametrize('path', PRESET_OF, ids=lambda path: path.stem)


def test_each_published_model_has_a_run_file():
    files = {
        path
        for kind in ('*_vit*', 'lvmt_*', 'pmt_*')
        for path in (ROOT / 'config').glob(f'train_{kind}.yaml')
    }
    assert files == set(PRESET_OF) == set(map(run_file, PUBLISHED))
    assert len(files) == 13 + 6 + 5 and len(PUBLISHED) == 13 + 14 + 5


@pytest.mark.parametrize('name', [name for name in PUBLISHED if not name.startswith('videomt-')])
def test_a_run_file_is_for_all_sizes_and_families(name):
    path = run_file(name)
    whole, changed = load_settings(path), load_settings(path, [f'network.preset={name}'])
    for field, value in load_preset(name).settings.items():
        assert getattr(changed.network, field) == value, field
    assert replace(changed, network=whole.network) == whole
    assert re.search(rf'^#   {name} ', path.read_text(), re.MULTILINE)
    image = load_settings(path, [f'network.preset={name}', 'stage=image'])
    assert image.network == replace(changed.network, propagation='none')


@RUN_FILES
def test_a_run_file_says_what_is_published(path):
    settings, preset = load_settings(path), load_preset(PRESET_OF[path])
    config = settings.network
    for field, value in preset.settings.items():
        assert getattr(config, field) == value, field
    assert (config.num_queries, config.patch_size) == (200, 16)
    kind, _, _, data = PRESET_OF[path].split('-')
    assert config.propagation == ('gru' if kind == 'lvmt' else 'fusion')
    (phase,) = settings.phases
    assert (phase.batch_size, phase.max_stride) == (8, 1)
    times = (phase.clip_frames, phase.chunk_frames, phase.frame_range)
    if kind == 'videomt':
        assert config.num_query_blocks == {384: 3, 768: 3, 1024: 4}[config.embed_dim]
        assert settings.init_from == f'timm:{timm_name(config)}'
        assert times == (5, None, None)
        assert phase.steps == {'vipseg': 40_000, 'vspw': 20_000}.get(data, 160_000)
        warmups = (500, 1000)
    else:
        assert (config.num_query_blocks, settings.init_from) == (6, 'timm')
        assert times == ((15, 5, 5) if kind == 'lvmt' else (5, None, None))
        steps = {'ovis': 80_000, 'vipseg': 40_000, 'vspw': 40_000}
        assert phase.steps == steps.get(data, 60_000)
        warmups = (6000, None)
    assert (settings.learning_rate, settings.layer_decay, settings.weight_decay) == (
        1e-4,
        0.6,
        0.05,
    )
    assert (settings.warmup_steps, settings.vit_warmup_steps) == warmups
    assert settings.decay_power == 0.9
    assert settings.ema_decay is None and settings.masked_attention_until == 0
    varied = settings.augmentation
    named = [source.dataset for source in settings.data]
    if data in ('vipseg', 'vspw'):
        assert named == [data] and (config.test_size, varied.crop_probability) == (720, 0)
        assert (varied.short_sides[0], varied.short_sides[-1]) == (480, 800)
        assert varied.max_long_side == 1333
        assert settings.validation is not None and settings.validation.dataset == data
        assert 'dataset: coco_panoptic' in path.read_text()
    else:
        assert named == [data, 'coco'] and varied.crop_probability == 0.5
        assert (varied.short_sides[0], varied.short_sides[-1]) == (320, 640)
        assert varied.max_long_side == 768
        assert settings.validation is None and 'not public' in path.read_text()
    assert settings.out == f'out/{path.stem}'


@RUN_FILES
def test_a_header_tells_the_published_score_and_the_commands(path):
    text = path.read_text()
    scores = dict(load_preset(PRESET_OF[path]).paper_score)
    del scores['benchmark']
    assert ', '.join(f'{name} {value}' for name, value in scores.items()) in text
    assert text.count(f'--config config/{path.name} ') == 2
    for override in ('stage=image out=', 'init_from='):
        assert f'#       {override}out/{path.stem}_image' in text


@RUN_FILES
def test_the_groups_of_the_full_model(path):
    settings = load_settings(path)
    with torch.device('meta'):
        net = build_network(settings.network)
    groups = parameter_groups(net, settings.weight_decay, settings.layer_decay, settings.decay_all)
    assert {group['weight_decay'] for group in groups} == {0.05}
    if net.encoder_is_frozen:
        assert [(group['name'], group['lr_factor']) for group in groups] == [('new', 1.0)]
        trained = {id(weight) for weight in groups[0]['params']}
        for name, weight in net.named_parameters():
            assert (id(weight) in trained) != name.startswith('backbone.vit.'), name
        return
    depth = settings.network.depth
    lowest = min(group['lr_factor'] for group in groups)
    assert lowest == pytest.approx(0.6 ** (depth - 1))
    count = sum(weight.numel() for group in groups for weight in group['params'])
    expected = {384: 25e6, 768: 98e6, 1024: 320e6}[settings.network.embed_dim]
    assert count == pytest.approx(expected, rel=0.1)


def write_copy(dataset: str, root: Path) -> None:
    """A data set with the numbers and names of a real one, whose split is train."""
    if dataset == 'coco':
        path = write_coco('coco', root, 4)
        content = json.loads(path.read_text())
        content['categories'] = [{'id': k, 'name': name} for k, name in enumerate(COCO, 1)]
        path.with_name('instances_train2017.json').write_text(json.dumps(content))
        (root / 'val2017').rename(root / 'train2017')
        return
    write_labelled(dataset, root, num_videos=2, num_frames=6)
    classes = load_classes(dataset)
    entries = [
        {'id': number, 'name': name, 'isthing': int(is_thing)}
        for number, name, is_thing in zip(
            classes.category_ids, classes.class_names, classes.thing_classes, strict=True
        )
    ]
    if dataset == 'vspw':
        (root / 'label_num_dic_final.json').unlink()  # then the official names count
        (root / 'val.txt').rename(root / 'train.txt')
    elif dataset == 'vipseg':
        content = json.loads((root / 'panoptic_gt_VIPSeg_val.json').read_text())
        content['categories'] = entries
        for video in content['annotations']:
            for frame in video['annotations']:
                for segment in frame['segments_info']:
                    # Every other shape is stuff; the head lists 58 things first.
                    place = segment['category_id'] + 58 * (segment['category_id'] % 2)
                    segment['category_id'] = classes.category_ids[place]
        (root / 'panoptic_gt_VIPSeg_train.json').write_text(json.dumps(content))
    else:
        content = json.loads((root / 'valid.json').read_text())
        content['categories'] = entries
        (root / 'train.json').write_text(json.dumps(content))
        (root / 'valid').rename(root / 'train')


SMALL = (
    'init_from=null', 'network.embed_dim=32', 'network.depth=5', 'network.num_heads=2',
    'network.table_size=64', 'network.num_queries=20', 'augmentation.short_sides=[32]',
    'augmentation.max_long_side=64', 'losses.num_points=64', 'validation=null',
    'warmup_steps=0', 'vit_warmup_steps=0', 'device=cpu', 'threads=1', 'workers=0', 'log_every=1',
)  # fmt: skip


@RUN_FILES
def test_a_step_on_a_small_copy(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # run files name folders from where they are started
    full = load_settings(path)
    for source in full.data:
        write_copy(source.dataset, Path(source.root))
    settings = load_settings(path, [*SMALL, 'phases.0.steps=1', 'phases.0.batch_size=4'])
    net = load_model(train(settings))
    (line,) = map(json.loads, Path(settings.out, 'log.jsonl').read_text().splitlines())
    assert line['step'] == 1 and 0 < line['loss'] < 1000 and line['mask'] > 0
    assert net.config == replace(settings.network, name='model')
    assert net.config.class_names == full.network.class_names
    begun = load_initial(settings)
    start = begun.state_dict()
    names = ['q.weight', 'class_head.bias', 'backbone.vit.blocks.4.mlp.fc1.bias']
    if begun.encoder_is_frozen:
        names += ['blocks.5.mlp.fc1.bias', 'lateral_projections.3.0.bias', 'bn.0.running_mean']
    for name in names:
        frozen = begun.encoder_is_frozen and name.startswith('backbone.')
        assert torch.equal(net.state_dict()[name], start[name].half().float()) == frozen, name


@pytest.mark.parametrize(
    ('name', 'propagation'),
    [('videomt-dinov2-small-ytvis2019', 'fusion'), ('lvmt-dinov3-small-ovis', 'gru')],
)
def test_the_two_commands_of_a_header_one_after_the_other(
    tmp_path, monkeypatch, name, propagation
):
    monkeypatch.chdir(tmp_path)
    path = run_file(name)
    for source in load_settings(path).data:
        write_copy(source.dataset, Path(source.root))
    small = [*SMALL, 'phases=[{steps: 1, clip_frames: 5, batch_size: 2}]']
    image = train(load_settings(path, [*small, 'stage=image', f'out=out/{path.stem}_image']))
    assert load_model(image).config.propagation == 'none'
    video = load_settings(path, [*small, f'init_from=out/{path.stem}_image/model.safetensors'])
    assert load_model(train(video)).config.propagation == propagation
    start = load_initial(video).state_dict()
    for name, weight in load_model(image).state_dict().items():
        assert torch.equal(start[name], weight), name


ALIKE = (
    'person', 'airplane', 'train', 'truck', 'boat', 'cat', 'dog', 'horse', 'cow', 'elephant',
    'bear', 'zebra', 'giraffe', 'skateboard', 'surfboard', 'snowboard',
)  # fmt: skip
"""Categories of COCO that YouTube-VIS has by the same name."""
RENAMED = {
    'tennis racket': 'tennis_racket', 'skis': 'snowboard', 'bicycle': 'motorbike',
    'motorcycle': 'motorbike',
}  # fmt: skip
YTVIS2021 = RENAMED | {'bird': 'bird', 'car': 'car', 'frisbee': 'flying_disc'}
OVIS_ALIKE = (*ALIKE[:2], *ALIKE[4:13], 'sheep', 'bicycle', 'motorcycle')


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        ('ytvis2019', {**dict(zip(ALIKE, ALIKE, strict=True)), **RENAMED, 'car': 'sedan'}),
        ('ytvis2021', {**dict(zip(ALIKE, ALIKE, strict=True)), **YTVIS2021}),
        ('ytvis2022', {**dict(zip(ALIKE, ALIKE, strict=True)), **YTVIS2021}),
        (
            'ovis',
            {name: name.capitalize() for name in OVIS_ALIKE}
            | dict.fromkeys(['car', 'bus', 'truck'], 'Vehical'),
        ),
    ],
)
def test_coco_joins_as_the_released_tables_have_it(dataset, expected):
    paths = [path for path, name in PRESET_OF.items() if name.endswith(f'-{dataset}')]
    assert len(paths) >= 3
    for path in paths:
        settings = load_settings(path)
        names = settings.network.class_names
        categories = [Category(k, name) for k, name in enumerate(COCO)]
        table = class_table('coco', names, categories, 'coco', settings.data[1].renamed)
        assert {COCO[number]: names[k] for number, k in table.items()} == expected


def test_a_network_is_named_by_its_model_but_for_what_else_is_said(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('phases: [{steps: 1, clip_frames: 1, batch_size: 1}]\n')
    small = 'network.preset=videomt-dinov2-small-ytvis2019'
    config = load_settings(path, [small]).network
    assert (config.embed_dim, config.class_names[0], config.num_classes) == (384, 'person', 40)
    config = load_settings(path, [small, 'network.propagation=gru']).network
    assert (config.embed_dim, config.propagation) == (384, 'gru')
    own = load_settings(
        path, [small, 'network.num_classes=2', 'network.class_names=[bolt, nut]']
    ).network
    assert (own.class_names, own.thing_classes, own.num_query_blocks) == (
        ('bolt', 'nut'), (True, True), 3,
    )  # fmt: skip
    with pytest.raises(ValueError, match='name of a published model, got demo, whose file alone'):
        load_settings(path, ['network.preset=demo'])
    with pytest.raises(ValueError, match="'videomt-dinov2-smal'. Nearest: videomt-dinov2-small"):
        load_settings(path, ['network.preset=videomt-dinov2-smal'])


@RUN_FILES
def test_an_image_run_is_the_same_but_for_frames_alone(path):
    image, video = load_settings(path, ['stage=image']), load_settings(path)
    assert image.network == replace(video.network, propagation='none')
    assert [phase.clip_frames for phase in image.phases] == [1]
    assert (image.data, image.augmentation) == (video.data, video.augmentation)
    assert image.masked_attention_until == 5 / 6
    assert load_settings(path, ['stage=image', 'masked_attention_until=0.5']) == replace(
        image, masked_attention_until=0.5
    )
