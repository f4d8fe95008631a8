"""The number of CPU threads that the node's libraries use."""

from __future__ import annotations

import threading

import cv2
import pytest
import torch

pytest.importorskip('rclpy', reason='needs ROS')

from videomt_ros.ros.loading import set_threads

pytestmark = pytest.mark.ros


def threads_of_a_new_thread() -> list[int]:
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.extend((torch.get_num_threads(), cv2.getNumThreads()))
    )
    thread.start()
    thread.join()
    return found


def test_threads_hold_for_what_starts_later_and_zero_restores_the_default():
    default = threads_of_a_new_thread()
    try:
        set_threads(3)
        assert threads_of_a_new_thread() == [3, 3]
        assert torch.get_num_threads() == 3
    finally:
        set_threads(0)
    assert threads_of_a_new_thread() == default
