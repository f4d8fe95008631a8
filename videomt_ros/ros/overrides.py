"""Find parameters that a user gave at the start but that no node here has.

ROS drops them in silence: a misspelt name, and a parameter file whose sections name other nodes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rclpy.node import Node

_NEAR = 0.75
"""Least likeness of two names, 0..1 as in difflib, with which one may be the other misspelt."""


class Overrides(NamedTuple):
    """What is wrong with the parameters that were given at the start, a sentence each."""

    errors: list[str]
    """Parameters that were meant for this node and have no effect."""
    warnings: list[str]
    """Parameters that may be meant for other nodes."""


def check_overrides(node: Node, arguments: Sequence[str]) -> Overrides:
    """Find the parameters that have no effect.

    These are misspelt parameters, parameter files without a section for the node, and each `-p`
    for another node. A section for any node, such as `/**`, may hold parameters of other nodes:
    an unknown one there is an error only if its name is near one that the node has.

    Args:
        node: node that has declared all of its parameters.
        arguments: command line of its process.
    """
    name = node.get_fully_qualified_name()
    errors = []
    meant: set[str] = set()  # parameters that were given for this node and no other
    for flag, value in _ros_arguments(arguments):
        if flag == '--params-file':
            sections = _sections_of_file(Path(value))
            matching = [section for section in sections if section_matches(section, name)]
            meant.update(*(sections[section] for section in matching if '*' not in section))
            if sections and not matching:
                errors.append(
                    f'The parameter file {value} has no section for the node {name}, only for '
                    f'{", ".join(sections)}. Name the section {name}, or /** for any node.'
                )
        else:
            target, colon, parameter = value.partition(':=')[0].rpartition(':')
            if not colon or section_matches(target, name):
                meant.add(parameter)
            else:
                errors.append(
                    f'The parameter {parameter!r} was given for the node {target}, but this one '
                    f'is {name}. Leave {target}: out.'
                )
    # rclpy has no public way to read the values that nobody declared.
    known = sorted(node._parameters)
    unknown = sorted(set(node._parameter_overrides) - set(known))
    warnings = []
    for parameter in unknown:
        text = f'The node has no parameter {parameter!r}.'
        near = difflib.get_close_matches(parameter, known, n=1, cutoff=_NEAR)
        if parameter in meant or near:
            (nearest,) = difflib.get_close_matches(parameter, known, n=1, cutoff=0.0)
            errors.append(f'{text} The nearest is {nearest!r}.')
        else:
            warnings.append(f'{text} It was given for any node, and is ignored.')
    return Overrides(errors, warnings)


def section_matches(section: str, name: str) -> bool:
    """Whether a section of a parameter file is for a node.

    Args:
        section: its key, in which `*` stands for one name and `**` for any number of them.
        name: full name of the node.
    """
    wildcards = {'*': '/[^/]+', '**': '(/[^/]+)*'}
    tokens = section.strip('/').split('/')
    pattern = ''.join(wildcards.get(token, '/' + re.escape(token)) for token in tokens)
    return re.fullmatch(pattern, name) is not None


def _ros_arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Iterate over the parameter files and parameters of a command line."""
    flags = {'-p': '-p', '--param': '-p', '--params-file': '--params-file'}
    is_ros = False
    for word, following in pairwise([*arguments, '']):
        if word == '--ros-args':
            is_ros = True
        elif word == '--':
            is_ros = False
        elif is_ros and word in flags:
            yield flags[word], following


def _sections_of_file(path: Path) -> dict[str, set[str]]:
    """Read the sections of a parameter file; rcl has read it before, without errors.

    Returns:
        Names of the parameters by the full key of the section.
    """
    sections: dict[str, set[str]] = {}

    def walk(key: str, value: Any) -> None:
        if not isinstance(value, dict):
            return
        for name, below in value.items():
            if name == 'ros__parameters':
                sections.setdefault(key or '/', set()).update(_flat_names(below))
            else:
                walk(f'{key}/{name.strip("/")}', below)

    # Without types, since rcl reads values that PyYAML refuses, such as `=` and a 31st of June.
    for document in yaml.load_all(path.read_text(encoding='utf-8'), Loader=yaml.BaseLoader):
        walk('', document)
    return sections


def _flat_names(parameters: Any, prefix: str = '') -> Iterator[str]:
    """Iterate over the names of nested parameters, joined by dots as in ROS."""
    for name, value in (parameters or {}).items():
        if isinstance(value, dict):
            yield from _flat_names(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}'
