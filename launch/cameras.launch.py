"""Start one segmenter that serves several cameras.

    ros2 launch videomt_ros cameras.launch.py model:=tue-mps/videomt-dinov2-small-ytvis2019 \
        cameras:=front,rear image:=/front/color/image_raw,/rear/color/image_raw rear.gap_s:=2.0

Without `image:=`, the camera `front` is the topic `front/image_raw`; its results are in
`front/segmentation/...`. All arguments of `segmenter.launch.py` apply to all cameras, or, with the
name of a camera before them, to one.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Require the names of the cameras, and start the node for them."""
    return LaunchDescription(
        [
            DeclareLaunchArgument('cameras', description='names of the cameras, as front,rear'),
            # An included launch file has the arguments of the one that includes it.
            IncludeLaunchDescription(str(Path(__file__).parent / 'segmenter.launch.py')),
        ]
    )
