"""Start the segmenter on one camera.

    ros2 launch videomt_ros segmenter.launch.py model:=tue-mps/videomt-dinov2-small-ytvis2019 \
        image:=/camera/image_raw

Every parameter of the node is an argument, which overrides the value in `params_file`. The node
configures and activates itself.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

# Name, type and meaning of each parameter; the ranges are in `videomt_ros/ros/parameters.py`.
PARAMETERS = (
    ('model', str, 'file, folder, hub name, or a name that `videomt models` lists; needed'),
    ('device', str, 'auto, cpu, cuda, cuda:0, cuda:1, ...'),
    ('precision', str, 'auto, fp32, fp16 or bf16'),
    ('task', str, 'auto (what the model was trained for), instance, panoptic or semantic'),
    ('cameras', list[str], 'names of the cameras, as "[front, rear]"; empty: one without a name'),
    ('max_batch', int, 'images, one of each camera, that the network processes at once'),
    ('input_reliability', str, 'QoS of the image subscription: auto, best_effort or reliable'),
    ('input_depth', int, 'QoS of the image subscription: images that wait in the middleware'),
    ('max_rate_hz', float, 'images per second that are processed; 0: all'),
    ('stale_after_s', float, 'age in seconds above which an image is dropped; 0: never'),
    ('score_threshold', float, 'lowest class probability of a segment, 0..1'),
    ('mask_threshold', float, 'mask probability above which a pixel belongs to a segment, 0..1'),
    ('overlap_threshold', float, 'panoptic: lowest share of its mask that a segment wins, 0..1'),
    ('min_area', int, 'fewest pixels of a segment'),
    ('speck_share', float, 'share of its largest part below which a far part is left out, 0..1'),
    ('gap_s', float, 'seconds for which a track that is not seen keeps its id'),
    ('confirm_frames', int, 'frames in which a track is seen before it is confirmed'),
    ('class_filter', list[str], 'names of the classes to publish, as "[person, dog]"'),
    ('track_states', list[str], 'states to publish, of "[tentative, confirmed, lost]"'),
    ('publish_tracks', bool, 'publish segmentation/tracks'),
    ('publish_instances', bool, 'publish segmentation/instances'),
    ('publish_semantic', bool, 'publish segmentation/semantic'),
    ('publish_overlay', bool, 'publish segmentation/overlay'),
    (
        'warn_silence_s',
        float,
        'seconds without an image above which diagnostics are at WARN; 0: none',
    ),
    (
        'error_silence_s',
        float,
        'seconds without an image above which diagnostics are at ERROR; 0: none',
    ),
    (
        'warn_latency_ms',
        float,
        'p95 of image to results in ms above which diagnostics are at WARN; 0: none',
    ),
    (
        'error_latency_ms',
        float,
        'p95 of image to results in ms above which diagnostics are at ERROR; 0: none',
    ),
    ('warn_rate_hz', float, 'results per second below which diagnostics are at WARN; 0: none'),
    ('error_rate_hz', float, 'results per second below which diagnostics are at ERROR; 0: none'),
    ('autostart', bool, 'configure and activate at once; false leaves that to a manager'),
)

# Name, default and meaning of the arguments that are not parameters of the node.
OTHERS = (
    ('image', 'image_raw', 'topic of the images (sensor_msgs/Image)'),
    ('namespace', '', 'namespace of the node and its topics'),
    ('name', 'segmenter', 'name of the node'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)


def start_node(context: LaunchContext) -> list[LifecycleNode]:
    """Start the node, with the parameters that were given a value."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind, _ in PARAMETERS
        if LaunchConfiguration(name).perform(context)
    }
    parameters = [ParameterFile(LaunchConfiguration('params_file'), allow_substs=True)]
    return [
        LifecycleNode(
            package='videomt_ros',
            executable='segmenter',
            namespace=LaunchConfiguration('namespace'),
            name=LaunchConfiguration('name'),
            # An empty dictionary would become an empty file, which rcl refuses.
            parameters=[*parameters, given] if given else parameters,
            remappings=[('image_raw', LaunchConfiguration('image'))],
            ros_arguments=['--log-level', LaunchConfiguration('log_level')],
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    share = FindPackageShare('videomt_ros')
    params_file = DeclareLaunchArgument(
        'params_file',
        default_value=PathJoinSubstitution([share, 'config', 'segmenter.yaml']),
        description='YAML file of parameters',
    )
    others = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in OTHERS
    ]
    # '' means the value in the file, which any other default would override.
    parameters = [
        DeclareLaunchArgument(
            name, default_value='', description=f'{meaning}. Default: as in params_file'
        )
        for name, _, meaning in PARAMETERS
    ]
    return LaunchDescription(
        [params_file, *others, *parameters, OpaqueFunction(function=start_node)]
    )
