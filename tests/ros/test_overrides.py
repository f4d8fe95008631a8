"""Parameters given at the start that the node does not have."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs ROS')

import rclpy
from rclpy.context import Context

from tests.ros.node_process import new_domain
from videomt_ros.ros.overrides import check_overrides, section_matches

pytestmark = pytest.mark.ros


@pytest.fixture
def check():
    """Checks a node `/robot/eye` with the parameter `gap_s` and these arguments."""

    def check_(*arguments: str) -> list[str]:
        words = ['--ros-args', '-r', '__ns:=/robot', *arguments]
        context = Context()
        rclpy.init(args=words, context=context, domain_id=new_domain())
        node = rclpy.create_node('eye', context=context)
        try:
            node.declare_parameter('gap_s', 1.0)
            return check_overrides(node, ['/bin/eye', *words])
        finally:
            node.destroy_node()
            context.try_shutdown()

    return check_


def test_what_the_node_has_is_no_error(check):
    assert check() == ([], [])
    parameters = ('gap_s:=2.0', 'use_sim_time:=true')
    assert check(*(word for p in parameters for word in ('-p', p))) == ([], [])


def test_misspelt_parameters_are_named_with_the_nearest(check):
    (first, second) = check('-p', 'gaps:=2.0', '--param', 'use_simtime:=true').errors
    assert first == "The node has no parameter 'gaps'. The nearest is 'gap_s'."
    assert second == "The node has no parameter 'use_simtime'. The nearest is 'use_sim_time'."


def test_parameters_of_another_node_are_named(check):
    (error,) = check('-p', 'ear:gap_s:=2.0').errors
    assert error.startswith("The parameter 'gap_s' was given for the node ear, but this one is")


@pytest.mark.parametrize(
    ('text', 'errors'),
    [
        ('/**: {ros__parameters: {gap_s: 2.0}}', 0),
        ('/robot/eye: {ros__parameters: {gap_s: 2.0}}', 0),
        ('robot: {eye: {ros__parameters: {gap_s: 2.0}}}', 0),
        ('/ear: {ros__parameters: {a: 1}}\n/*/eye: {ros__parameters: {gap_s: 2.0}}', 0),
        # Without its namespace the section is for /eye, and ROS drops it.
        ('eye: {ros__parameters: {gap_s: 2.0}}', 1),
        ('/**: {ros__parameters: {gap: 2.0}}', 1),
        ('robot: {ear: {ros__parameters: {a: 1}}}', 1),
        # What rcl reads and PyYAML refuses, and what YAML 1.1 takes for a truth value.
        ('/**: {ros__parameters: {gap_s: 2.0}}\n---\n/**: {ros__parameters: {gap: 2.0}}', 1),
        ('/robot/eye: {ros__parameters: {on: =, off: 2026-06-31, yes: !size 3}}', 3),
    ],
)
def test_files_without_a_section_for_the_node_are_named(check, tmp_path, text, errors):
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    found = check('--params-file', str(path))
    assert len(found.errors) == errors, found
    assert not found.warnings


@pytest.mark.parametrize(
    ('text', 'num_errors', 'num_warnings'),
    [
        ('/**: {ros__parameters: {rate_hz: 5, wheel: {radius: 0.1}}}', 0, 2),
        ('/**: {ros__parameters: {rate_hz: 5, gap_: 2.0}}', 1, 1),
        ('/robot/eye: {ros__parameters: {rate_hz: 5}}', 1, 0),
        ('/**: {ros__parameters: {a: 1}}\n/robot/eye: {ros__parameters: {a: 1}}', 1, 0),
        ('/**: {ros__parameters: {}}', 0, 0),
    ],
)
def test_sections_for_any_node_may_hold_what_other_nodes_have(
    check, tmp_path, text, num_errors, num_warnings
):
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    errors, warnings = check('--params-file', str(path))
    assert (len(errors), len(warnings)) == (num_errors, num_warnings), (errors, warnings)


@pytest.mark.parametrize(
    ('section', 'matches'),
    [
        ('/**', True),
        ('**', True),
        ('/robot/*', True),
        ('/robot/**', True),
        ('/**/eye', True),
        ('/robot/eye', True),
        ('/robot/eye/**', True),
        ('/*', False),
        ('/eye', False),
        ('/robot/ey', False),
        ('/robot/eye/left', False),
    ],
)
def test_sections_match_as_in_rcl(section, matches):
    assert section_matches(section, '/robot/eye') == matches
