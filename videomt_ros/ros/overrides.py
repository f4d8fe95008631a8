"""Find parameters that a user gave at the start but that no node here has.

ROS drops them in silence: a misspelt name, and a parameter file whose sections name other nodes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node


def override_errors(node: Node, arguments: Sequence[str]) -> list[str]:
    """Find the parameters that were given in vain.

    Args:
        node: node that has declared all of its parameters.
        arguments: command line of its process.

    Returns:
        One sentence for each misspelt parameter, each parameter file without a section for the
        node, and each `-p` for another node.
    """
    # rclpy has no public way to read the values that nobody declared.
    known = set(node._parameters)
    given = set(node._parameter_overrides)
    errors = [unknown_parameter(name, known) for name in sorted(given - known)]
    name = node.get_fully_qualified_name()
    for flag, value in _ros_arguments(arguments):
        if flag == '--params-file':
            sections = _sections_of_file(Path(value))
            if sections and not any(section_matches(section, name) for section in sections):
                errors.append(
                    f'The parameter file {value} has no section for the node {name}, only for '
                    f'{", ".join(sections)}. Name the section {name}, or /** for any node.'
                )
        else:
            target, colon, rest = value.partition(':=')[0].rpartition(':')
            if colon and not section_matches(target, name):
                errors.append(
                    f'The parameter {rest!r} was given for the node {target}, but this one is '
                    f'{name}. Leave {target}: out.'
                )
    return errors


def unknown_parameter(name: str, known: Iterable[str]) -> str:
    """Say that a parameter is unknown, and which known one is the nearest."""
    (nearest,) = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f'The node has no parameter {name!r}. The nearest is {nearest!r}.'


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


def _sections_of_file(path: Path) -> list[str]:
    """Get the full keys of a parameter file's sections; rcl has read it before, without errors."""

    def walk(key: str, value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        if 'ros__parameters' in value:
            yield key or '/'
        for name, below in value.items():
            if name != 'ros__parameters':
                yield from walk(f'{key}/{str(name).strip("/")}', below)

    return list(walk('', yaml.safe_load(path.read_text(encoding='utf-8'))))
