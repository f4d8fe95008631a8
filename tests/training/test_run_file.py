"""Run files: what is read, converted and refused, in one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomt_ros.cli import main
from videomt_ros.training.run_file import load_settings
from videomt_ros.training.run_settings import LossWeights, Phase

ROOT = Path(__file__).parents[2]
SMALL = """
network: {num_classes: 2, class_names: [on-road, kerb], embed_dim: 32, num_heads: 2}
phases: [{steps: 1, clip_frames: 1, batch_size: 1}]
image_sizes: [[32, 48]]
"""


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / 'run.yaml'
    path.write_text(SMALL)
    return path


def test_numbers_may_be_written_as_people_do(run_file):
    settings = load_settings(
        run_file,
        [
            'learning_rate=1e-4',  # a text to YAML 1.1
            'weight_decay=0',
            'losses.mask_weight=3',
            'network.pixel_mean=[0, 1, 2e0]',
            'image_sizes=[[16, 32], [64, 64]]',
        ],
    )
    assert settings.learning_rate == 1e-4
    assert isinstance(settings.weight_decay, float)
    assert settings.losses == LossWeights(mask_weight=3.0)
    assert settings.network.pixel_mean == (0.0, 1.0, 2.0)
    assert settings.image_sizes == ((16, 32), (64, 64))
    assert settings.phases == (Phase(1, 1, 1),)


def test_an_entry_of_a_list_may_be_changed_alone(run_file):
    phases = f'phases=[{PHASE}}}, {PHASE}}}]'
    settings = load_settings(run_file, [phases, 'phases.1.batch_size=4', 'image_sizes.0.1=64'])
    assert settings.phases == (Phase(1, 1, 1), Phase(1, 1, 4))
    assert settings.image_sizes == ((32, 64),)
    settings = load_settings(run_file, ['phases.0={steps: 5, clip_frames: 2, batch_size: 3}'])
    assert settings.phases == (Phase(5, 2, 3),)


def test_some_settings_may_be_null(run_file):
    settings = load_settings(run_file, ['ema_decay=null', 'vit_warmup_steps=null'])
    assert settings.ema_decay is None and settings.vit_warmup_steps is None
    settings = load_settings(run_file, ['ema_decay=9e-1', 'vit_warmup_steps=7'])
    assert (settings.ema_decay, settings.vit_warmup_steps) == (0.9, 7)


def test_a_run_that_says_nothing_follows_the_published_recipe(run_file):
    settings = load_settings(run_file)
    assert (settings.learning_rate, settings.weight_decay) == (1e-4, 0.05)
    assert (settings.layer_decay, settings.decay_power) == (0.6, 0.9)
    assert (settings.warmup_steps, settings.vit_warmup_steps) == (500, 1000)
    assert settings.ema_decay is None and settings.stage == 'video'
    assert settings.decay_all
    losses = settings.losses
    assert losses.expected_from == 'clip'
    assert (losses.class_weight, losses.mask_weight, losses.dice_weight) == (2, 5, 5)
    assert (losses.no_object_weight, losses.num_points) == (0.1, 12544)


def test_a_panoptic_run_says_which_classes_are_things(run_file):
    preset = 'network={preset: videomt-dinov2-large-vipseg, class_names: [forklift, floor], %s}'
    with pytest.raises(ValueError, match=r'network.thing_classes for task panoptic, got none'):
        load_settings(run_file, [preset % 'num_classes: 2'])
    said = 'num_classes: 2, thing_classes: [true, false]'
    assert load_settings(run_file, [preset % said]).network.thing_classes == (True, False)


def test_the_stage_of_images_has_single_frames(run_file):
    phases = 'phases=[{steps: 9, clip_frames: 15, batch_size: 8, chunk_frames: 5, max_stride: 3}]'
    settings = load_settings(run_file, ['stage=image', 'network.propagation=gru', phases])
    assert settings.network.propagation == 'none'
    assert settings.phases == (Phase(9, 1, 8),)


def test_where_a_run_runs_is_not_what_it_learns(run_file):
    one = load_settings(run_file, ['data=[{dataset: ovis, root: /a, weight: 2}]']).deciding()
    changed = [
        'data=[{dataset: ovis, root: /b, weight: 2}]', 'out=x', 'devices=8', 'nodes=2',
        'accumulate=4', 'precision=bf16', 'workers=3', 'threads=9', 'log_every=3', 'compile=true',
        'activation_checkpointing=true', 'keep_checkpoints=9', 'checkpoint_every=7', 'wandb=mine',
        'validation={dataset: ovis, root: /c}',
    ]  # fmt: skip
    assert load_settings(run_file, changed).deciding() == one
    for other in ('seed=4', 'data=[{dataset: ovis, root: /a, weight: 3}]', 'ema_decay=0.9'):
        assert load_settings(run_file, [changed[0], other]).deciding() != one


@pytest.mark.parametrize(
    ('data', 'drawn'),
    [
        ('[]', True),
        ('[{dataset: synthetic}]', True),
        ('[{dataset: synthetic}, {dataset: ovis, root: a}]', False),
        ('[{dataset: ovis, root: a}]', False),
    ],
)
def test_a_network_carries_that_it_saw_drawn_scenes_alone(run_file, data, drawn):
    assert load_settings(run_file, [f'data={data}']).network.drawn_only == drawn


def test_a_run_file_may_hold_any_letters(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text(SMALL.replace('kerb', 'Bordstein und Wände'), encoding='utf-8')
    assert load_settings(path).network.class_names[1] == 'Bordstein und Wände'


PHASE = '{steps: 1, clip_frames: 1, batch_size: 1'
WRONG = [
    ('speed=3', 'Unknown settings: speed'),
    ('losses.colour=3', 'Unknown settings: losses.colour'),
    ('batchsize=2', r'settings: batchsize\. Did you mean phases\.0\.batch_size\? Expected some'),
    ('netwrok.depth=2', r'settings: netwrok\. Did you mean network\?'),
    ('losses.num_point=2', r'losses\.num_point\. Did you mean losses\.num_points\?'),
    ('phases.0.clip_frame=2', r'phases\.0\.clip_frame\. Did you mean phases\.0\.clip_frames\?'),
    ('zzz=1', r'Unknown settings: zzz\. Expected some of: accumulate'),
    ('losses={1: 2, a: 3}', 'Unknown settings: losses.1, losses.a'),
    ('network={}', 'Missing settings: network.num_classes.*model.config.NetworkConfig says what'),
    ('phases=[{steps: 1}]', 'Missing settings: phases.0.clip_frames, phases.0.batch_size. Give'),
    ('seed', 'key=value'),
    ('phases.more=1', "inside phases for 'phases.more=1'.* Give it as a whole: phases="),
    ('phases.1.steps=1', "Expected 1 inside phases for 'phases.1.steps=1', it has none"),
    ('phases.-1.steps=1', 'Expected -1 inside phases for'),
    ('phases.0.steps.a=1', r'Give it as a whole: phases\.0\.steps='),
    ('network.num_heads.a=1', 'Give it as a whole: network.num_heads='),
    ('seed=[', 'Expected a value in YAML in .seed=.'),
    # Types.
    ('learning_rate=fast', "Expected learning_rate to be a number, got 'fast'"),
    ('learning_rate=true', 'Expected learning_rate to be a number, got True'),
    ('learning_rate=.nan', 'Expected learning_rate to be a number'),
    ('learning_rate=.inf', 'Expected learning_rate to be a number'),
    ('learning_rate=', 'Expected learning_rate to be a number, got None'),
    ('learning_rate=[1]', 'Expected learning_rate to be a number'),
    ('seed=1.5', 'Expected seed to be a whole number, got 1.5'),
    ('seed=true', 'Expected seed to be a whole number, got True'),
    ('threads=two', "Expected threads to be a whole number, got 'two'"),
    ('out=3', 'Expected out to be a text, got 3'),
    ('device=0', 'Expected device to be one of auto, cpu, cuda, got 0'),
    ('network.norm_queries=1', 'Expected network.norm_queries to be true or false, got 1'),
    ('network.family=resnet', 'Expected network.family to be one of dinov2'),
    ('network.class_names=[on, off]', 'Expected network.class_names.0 to be a text, got True'),
    ('network.class_names=ab', 'Expected network.class_names to be a list'),
    ('network.pixel_std=[1, 2]', 'Expected network.pixel_std to be a list of 3'),
    ('network=small', "Expected keys and values in network, got 'small'"),
    ('phases=3', 'Expected phases to be a list, got 3'),
    ('phases=[3]', 'Expected keys and values in phases.0, got 3'),
    (f'phases=[{PHASE}, max_stride: x}}]', 'Expected phases.0.max_stride to be a whole number'),
    ('image_sizes=[32, 40]', 'Expected image_sizes.0 to be a list of 2, got 32'),
    ('image_sizes=[[32, 40, 3]]', 'Expected image_sizes.0 to be a list of 2'),
    ('image_sizes=[[32, 4.5]]', 'Expected image_sizes.0.1 to be a whole number'),
    # Ranges.
    ('phases=[]', 'Expected phases, one or more.* Give each steps'),
    ('phases=[{steps: 0, clip_frames: 1, batch_size: 1}]', 'Expected steps of 1 or more, got 0'),
    ('phases=[{steps: 1, clip_frames: 0, batch_size: 1}]', 'Expected clip_frames of 1 or more'),
    ('phases=[{steps: 1, clip_frames: 1, batch_size: -1}]', 'Expected batch_size of 1 or more'),
    (f'phases=[{PHASE}}}, {PHASE}, max_stride: 0}}]', r'^phases\.1: Expected max_stride of 1'),
    (f'phases=[{PHASE}, max_stride: 0}}]', 'Expected max_stride of 1 or more'),
    (f'phases=[{PHASE}, hidden_frames: [8, 7]}}]', 'Expected hidden_frames as fewest and most'),
    (f'phases=[{PHASE}, hidden_frames: 8}}]', 'Expected phases.0.hidden_frames to be a list'),
    (f'phases=[{PHASE}, chunk_frames: 1}}]', 'Expected chunk_frames of 2 or more, got 1'),
    (f'phases=[{PHASE}, chunk_frames: 2.5}}]', 'Expected phases.0.chunk_frames to be a whole'),
    ('image_sizes=[]', 'Expected image_sizes, one.* Leave the setting out'),
    ('image_sizes=[[0, 32]]', 'Expected image_sizes of 8 pixels or more'),
    ('image_sizes=[[32, 32], [-32, 32]]', 'got -32 x 32'),
    ('image_sizes=[[30, 48]]', 'in multiples of the patch 16, got 30 x 48'),
    ('network.num_heads=3', 'multiple of num_heads'),
    ('network.num_queries=0', 'Expected num_queries of 1 or more'),
    ('seed=-1', 'Expected seed from 0 to 2147483647, got -1'),
    ('learning_rate=0', 'Expected learning_rate above 0'),
    ('weight_decay=-0.1', 'Expected weight_decay of 0 or more'),
    ('warmup_steps=-1', 'Expected warmup_steps of 0 or more'),
    ('decay_power=-1', 'Expected decay_power of 0 or more'),
    ('grad_clip_norm=0', 'Expected grad_clip_norm above 0'),
    ('masked_attention_until=1.1', 'Expected masked_attention_until from 0 to 1, got 1.1'),
    ('ema_decay=1', 'Expected ema_decay in 0..1'),
    ('ema_decay=off', 'Expected ema_decay to be a number'),
    ('layer_decay=0', 'Expected layer_decay above 0, up to 1'),
    ('layer_decay=1.1', 'Expected layer_decay above 0, up to 1'),
    ('decay_all=1', 'Expected decay_all to be true or false'),
    ('vit_warmup_steps=-1', 'Expected vit_warmup_steps of 0 or more'),
    ('vit_warmup_steps=0.5', 'Expected vit_warmup_steps to be a whole number'),
    ('warmup_steps=null', 'Expected warmup_steps to be a whole number'),
    ('threads=0', 'Expected threads of 1 or more'),
    ('workers=-1', 'Expected workers of 0 or more'),
    ('checkpoint_every=0', 'Expected checkpoint_every of 1 or more'),
    ('log_every=0', 'Expected log_every of 1 or more'),
    ('devices=0', 'Expected devices of 1 or more'),
    ('nodes=0', 'Expected nodes of 1 or more'),
    ('accumulate=0', 'Expected accumulate of 1 or more'),
    ('keep_checkpoints=0', 'Expected keep_checkpoints of 1 or more'),
    ('precision=fp8', "Expected precision to be one of auto, fp32, bf16, fp16, got 'fp8'"),
    ('stage=clips', "Expected stage to be one of image, video, got 'clips'"),
    ('validation={}', 'Missing settings: validation.dataset, validation.root'),
    ('validation={dataset: x, root: y}', '^validation: Expected dataset out of ytvis2019'),
    ('validation={dataset: ovis, root: y, every: 0}', 'Expected every of 1 or more'),
    ('validation={dataset: ovis, root: y, limit: 0}', 'Expected limit of 1 or more'),
    ('validation={dataset: ovis, root: y, pictures: -1}', 'Expected pictures of 0 or more'),
    ('device=gpu', "Expected device to be one of auto, cpu, cuda, got 'gpu'"),
    ('losses.class_weight=-1', '^losses: Expected class_weight of 0 or more'),
    ('losses.no_object_weight=-1', 'Expected no_object_weight of 0 or more'),
    ('losses.num_points=0', 'Expected num_points of 1 or more'),
    ('losses.oversample_ratio=0.5', 'Expected oversample_ratio of 1 or more, got 0.5'),
    ('losses.importance_ratio=1.5', 'Expected importance_ratio from 0 to 1, got 1.5'),
    # Data.
    ('data=ovis', 'data to be a list'),
    ('data=[{root: a}]', r'Missing settings: data\.0\.dataset'),
    ('data=[{dataset: ovis, root: a, wait: 1}]', r'Unknown settings: data\.0\.wait'),
    ('data=[{dataset: kitti, root: a}]', r'^data\.0: Expected dataset out of ytvis2019, .*kitti'),
    ('data=[{dataset: ovis}]', r'^data\.0: Expected a root, the folder .* ovis'),
    ('data=[{dataset: synthetic, root: a}]', r"^data\.0: .* no root for .* synthetic, got 'a'"),
    ('data=[{dataset: ovis, root: a, weight: 0}]', r'^data\.0: Expected weight above 0, got 0'),
    ('data=[{dataset: ovis, root: a, renamed: [[a]]}]', r'data\.0\.renamed\.0 .* list of 2'),
    ('augmentation.short_sides=[]', '^augmentation: Expected short_sides, one or more'),
    ('augmentation.max_long_side=631', 'max_long_side of the largest .* 640, got 631'),
    ('augmentation.crop_probability=2', 'crop_probability from 0 to 1, got 2'),
    ('augmentation.max_rotation_deg=-1', 'max_rotation_deg from 0 to 180, got -1'),
]


@pytest.mark.parametrize(('override', 'message'), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_settings_are_named(run_file, override, message):
    with pytest.raises(ValueError, match=message):
        load_settings(run_file, [override])


@pytest.mark.parametrize('text', ['', '[1, 2]', 'a: [', '\x00'])
def test_files_that_are_no_run_file_are_refused(tmp_path, text):
    path = tmp_path / 'run.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match='Expected .*/run.yaml'):
        load_settings(path)


@pytest.mark.parametrize('override', ['seed=[', 'learning_rate=x', 'device=gpu'])
def test_the_command_ends_in_one_line(run_file, capsys, override):
    assert main(['train', '--config', str(run_file), override]) == 1
    output = capsys.readouterr()
    assert output.err.startswith('videomt train: Expected')
    assert output.err.count('\n') == 1


def test_the_demo_run_file_builds():
    settings = load_settings(ROOT / 'config/train_demo.yaml')
    assert settings.network.class_names == (
        'circle', 'square', 'triangle', 'star', 'ring', 'cross',
    )  # fmt: skip
    assert settings.total_steps == sum(phase.steps for phase in settings.phases)
    # All of its network is new, unlike that of the published recipe.
    assert (settings.layer_decay, settings.vit_warmup_steps) == (1, None)
    assert settings.ema_decay == 0.998


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('train_ytvis2019_vits.yml', 'Did you mean .*/config/train_ytvis2019_vits.yaml'),
        ('demo.yaml', 'there is no .*/demo.yaml'),
        ('.', 'is a folder. Some are in .*/config'),
    ],
)
def test_a_run_file_that_is_not_there(tmp_path, name, told):
    with pytest.raises(ValueError, match=f'Expected a YAML run file, but .*{told}'):
        load_settings(tmp_path / name)


def test_bad_records_are_left_out_by_an_option_or_a_setting(run_file, monkeypatch):
    from videomt_ros.training import trainer

    taken = []
    monkeypatch.setattr(trainer, 'train', lambda settings, resume: taken.append(settings.skip_bad))
    for more in (['--skip-bad'], ['skip_bad=true'], []):
        assert main(['train', '--config', str(run_file), *more]) == 0
    assert taken == [True, True, False]
