"""Play a bag to the segmenter, record its tracks, and score them.

    ros2 launch videomt_ros replay.launch.py model:=demo bag:=bags/NAME out:=recorded \
        truth:=bags/NAME.json rate:=0.5 gap_s:=2.0 rviz:=true

All arguments of `segmenter.launch.py` apply, except those that name topics. The launch ends by
itself: with 0 once the tracks are recorded, and scored if there is a truth.
"""

from collections.abc import Callable
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch_ros.substitutions import ExecutableInPackage
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from videomt_ros import launch_files


def run(*words: str, then: Callable[[], object]) -> ExecuteProcess:
    """Make a process of `videomt`, after which the launch goes on if it succeeds.

    Args:
        words: arguments of the command.
        then: makes the next action.
    """

    def on_exit(event: ProcessExited, context: LaunchContext) -> object:
        if event.returncode and not context.is_shutdown:
            raise RuntimeError(f'videomt {words[0]} ended with exit code {event.returncode}')
        return None if context.is_shutdown else then()

    command = ExecutableInPackage('videomt', 'videomt_ros')
    return ExecuteProcess(
        cmd=[command, *words],
        name='videomt',
        output='screen',
        on_exit=on_exit,
        sigterm_timeout='20',  # it ends processes of its own
    )


def prepare(context: LaunchContext) -> None:
    """Check the arguments, and let the node hear every image unless they say otherwise."""
    given = context.launch_configurations
    # Before the node: an error right after its start would leave it behind.
    launch_files.check_replay(given)
    for name, value in launch_files.REPLAY_DEFAULTS.items():
        given.setdefault(name, value)


def start(context: LaunchContext) -> list[ExecuteProcess]:
    """Play and record; then score, or end."""
    given = context.launch_configurations
    namespace = prefix_namespace(given.get('ros_namespace'), given['namespace'])
    node = f'{make_namespace_absolute(namespace).rstrip("/")}/{given["name"]}'

    def score() -> ExecuteProcess | Shutdown:
        if not given['truth']:
            return Shutdown(reason='the bag has been played')
        return run(
            *('evaluate', '--results-bag', given['out'], '--truth', given['truth']),
            then=lambda: Shutdown(reason='the tracks have been scored'),
        )

    return [run(*launch_files.replay_words(given, node), then=score)]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, and start the node and the processes around it."""
    declared = [
        DeclareLaunchArgument(name, description=meaning)
        if name in launch_files.REPLAY_NEEDS
        else DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in launch_files.REPLAY_ARGUMENTS
    ]
    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=prepare),
            IncludeLaunchDescription(str(Path(__file__).parent / 'segmenter.launch.py')),
            OpaqueFunction(function=start),
        ]
    )
