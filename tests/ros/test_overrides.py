"""Parameters given at the start that the node does not have."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs ROS')

import rclpy
from rclpy.context import Context

from tests.ros.node_process import new_domain
from videomt_ros.ros.overrides import override_errors, section_matches

pytestmark = pytest.mark.ros


@pytest.fixture
def errors_of():
    """Lists the errors of a node `/robot/eye` with the parameter `gap_s` and these arguments."""

    def errors_of_(*arguments: str) -> list[str]:
        words = ['--ros-args', '-r', '__ns:=/robot', *arguments]
        context = Context()
        rclpy.init(args=words, context=context, domain_id=new_domain())
        node = rclpy.create_node('eye', context=context)
        try:
            node.declare_parameter('gap_s', 1.0)
            return override_errors(node, ['/bin/eye', *words])
        finally:
            node.destroy_node()
            context.try_shutdown()

    return errors_of_


def test_what_the_node_has_is_no_error(errors_of):
    assert errors_of() == []
    parameters = ('gap_s:=2.0', 'use_sim_time:=true')
    assert errors_of(*(word for p in parameters for word in ('-p', p))) == []


def test_misspelt_parameters_are_named_with_the_nearest(errors_of):
    (first, second) = errors_of('-p', 'gaps:=2.0', '--param', 'use_simtime:=true')
    assert first == "The node has no parameter 'gaps'. The nearest is 'gap_s'."
    assert second == "The node has no parameter 'use_simtime'. The nearest is 'use_sim_time'."


def test_parameters_of_another_node_are_named(errors_of):
    (error,) = errors_of('-p', 'ear:gap_s:=2.0')
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
    ],
)
def test_files_without_a_section_for_the_node_are_named(errors_of, tmp_path, text, errors):
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    found = errors_of('--params-file', str(path))
    assert len(found) == errors, found


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
