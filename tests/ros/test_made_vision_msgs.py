"""The stand-in for vision_msgs crosses DDS, in this process and from another."""

from __future__ import annotations

import os
import subprocess
import sys

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from tests.ros.made_vision_msgs import vision_msgs_environment
from tests.ros.node_process import new_domain

SENDER = """
import rclpy
from vision_msgs.msg import Detection3D, Detection3DArray
rclpy.init()
node = rclpy.create_node('sender')
publisher = node.create_publisher(Detection3DArray, 'detections', 1)
message = Detection3DArray(detections=[Detection3D(id='4')])
while True:
    publisher.publish(message)
    rclpy.spin_once(node, timeout_sec=0.1)
"""


def test_another_process_sends_one(vision_msgs):
    domain = new_domain()
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('receiver', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard = []
    node.create_subscription(vision_msgs.Detection3DArray, 'detections', heard.append, 1)
    environment = {**os.environ, **vision_msgs_environment(), 'ROS_DOMAIN_ID': str(domain)}
    sender = subprocess.Popen([sys.executable, '-c', SENDER], env=environment)
    try:
        while not heard and sender.poll() is None:
            executor.spin_once(0.1)
        assert heard[0].detections[0].id == '4'
    finally:
        sender.kill()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
