"""Scores of whole scenes: a network that knows the truth gets them all right."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomt_ros.cli import main
from videomt_ros.datasets.synthetic.scene import CLASS_NAMES, Scene
from videomt_ros.evaluation.scenes import measure_scenes
from videomt_ros.inference.settings import StreamSettings
from videomt_ros.model import Outputs, VidEoMT, VidEoMTConfig, save_model

SEEDS = (2, 5)  # nothing in them is too small to count for long
NUM_FRAMES = 8
CONFIG = VidEoMTConfig(
    num_classes=len(CLASS_NAMES),
    class_names=CLASS_NAMES,
    num_queries=8,
    test_size=384,  # of the scenes: no resize, no padding
)


class Oracle(nn.Module):
    """Answers with the truth of the scenes, one after the other.

    The state holds the numbers of scene and frame. Query i has the object of identity i + 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = CONFIG
        self.weight = nn.Parameter(torch.zeros(1))
        self.scenes = [Scene(seed, num_frames=NUM_FRAMES) for seed in SEEDS]
        self.num_started = 0

    def initial_state(self, batch_size: int = 1) -> Tensor:
        self.num_started += 1
        return torch.tensor([self.num_started - 1, 0])

    def step(self, frames: Tensor, state: Tensor) -> tuple[Outputs, Tensor]:
        index, t = state.tolist()
        scene = self.scenes[index]
        ids = torch.from_numpy(scene.frame(t)[1].astype('int64'))
        class_logits = torch.zeros(1, 8, len(CLASS_NAMES) + 1)
        masks = torch.zeros(1, 8, *ids.shape)
        for identity, class_id in scene.class_of.items():
            class_logits[0, identity - 1, class_id] = 10
            masks[0, identity - 1] = ids == identity
        class_logits[0, :, -1] = 5
        mask_logits = 20 * F.avg_pool2d(masks, 4) - 10
        return Outputs(class_logits, mask_logits), state + torch.tensor([0, 1])


def test_an_oracle_is_right():
    oracle = Oracle()
    scores = measure_scenes(oracle, SEEDS, NUM_FRAMES)
    assert oracle.num_started == len(SEEDS)
    assert scores.num_frames == len(SEEDS) * NUM_FRAMES
    assert scores.num_switches == 0
    assert scores.classes_right == 1.0
    # Every object in all frames but those in which its track awaits confirmation.
    confirm = StreamSettings().confirm_frames - 1
    num_objects = sum(len(scene.class_of) for scene in oracle.scenes)
    assert scores.num_found == scores.num_visible - confirm * num_objects
    assert scores.mean_iou / scores.found > 0.97


def test_each_scene_starts_anew_even_of_one_frame():
    oracle = Oracle()
    measure_scenes(oracle, SEEDS, 1)  # whose stamps are equal, so that the stream cannot tell
    assert oracle.num_started == len(SEEDS)


def quality(path: Path, class_names: tuple[str, ...]) -> int:
    """Exit code of the verb for a tiny network of these classes."""
    config = VidEoMTConfig(
        num_classes=len(class_names), class_names=class_names, embed_dim=32, depth=2, num_heads=2,
        table_size=32, num_queries=4, num_query_blocks=1, test_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(VidEoMT(config), path)
    return main(['quality', '--model', str(path), '--scenes', '2', '--frames', '2'])


def test_the_verb_prints_its_figures(tmp_path, capsys):
    assert quality(tmp_path / 'net.safetensors', CLASS_NAMES) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('2 scenes of 2 frames, ')
    assert lines[1] == '(objects below 0.2% of the image are not scored)'
    assert [line[:23].strip() for line in lines[2:]] == [
        'mean IoU', 'found (IoU >= 0.5)', 'classes right, of found', 'switches per 100 frames',
    ]  # fmt: skip


def test_the_verb_refuses_other_classes(tmp_path, capsys):
    assert quality(tmp_path / 'net.safetensors', ('cat', 'dog')) == 1
    output = capsys.readouterr()
    assert output.out == ''
    assert output.err.startswith('videomt quality: Expected a model of the classes circle,')
    assert output.err.count('\n') == 1


def test_the_verb_refuses_no_scenes(capsys):
    assert main(['quality', '--scenes', '0']) == 1
    assert 'Expected 1 or more scenes' in capsys.readouterr().err
