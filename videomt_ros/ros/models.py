"""The models of the node, and the labels that tell them apart where there are several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from videomt_ros.engines.engine import Engine
from videomt_ros.model.config import Task


@dataclass(frozen=True)
class Model:
    """A model that runs on the images of every camera."""

    label: str
    """Word that tells it from the others in topics, statuses and the log; empty for the only
    one."""
    engine: Engine
    """What runs it."""

    @property
    def prefix(self) -> str:
        """What the names of its topics begin with, after the camera: `panoptic/`, or nothing."""
        return f'{self.label}/' if self.label else ''


def label_models(engines: Sequence[Engine], task: Task | None = None) -> list[Model]:
    """Choose the label of each model: its task where all tasks differ, else its name.

    A name that an earlier model has is followed by a number.

    Args:
        engines: the models in the order of the parameter.
        task: task that all of them were given; None: each has its own.
    """
    if len(engines) == 1:
        return [Model('', engines[0])]
    labels: list[str] = [task or engine.config.task for engine in engines]
    if len(set(labels)) < len(labels):
        labels = _numbered([_topic_word(engine.config.name) for engine in engines])
    return [Model(label, engine) for label, engine in zip(labels, engines, strict=True)]


def _numbered(words: Sequence[str]) -> list[str]:
    """Add a number to words that came before.

    >>> _numbered(['best', 'last', 'best'])
    ['best', 'last', 'best_2']
    """
    found: list[str] = []
    for word in words:
        number, label = 1, word
        while label in found:
            number += 1
            label = f'{word}_{number}'
        found.append(label)
    return found


def _topic_word(name: str) -> str:
    """Make a part of the name of a topic of the name of a model.

    >>> _topic_word('lvmt-dinov3-large-vipseg')
    'lvmt_dinov3_large_vipseg'
    """
    word = re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_') or 'model'
    return word if word[0].isalpha() else f'model_{word}'
