"""The node answers before anything is imported that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS')

pytestmark = pytest.mark.ros

SLOW = ('torch', 'timm', 'torchvision', 'scipy', 'lightning', 'pycocotools', 'onnxruntime')
CODE = f"""
import json, sys
import rclpy
from videomt_ros.ros.main import SegmenterNode
from videomt_ros.ros.memory import return_memory

def imported():
    return [name for name in {SLOW} if name in sys.modules]

rclpy.init()
node = SegmenterNode()
node._report()
return_memory()
print(json.dumps(imported()))
node.close()
rclpy.shutdown()
"""


def test_a_node_that_is_not_configured_has_not_imported_torch():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
