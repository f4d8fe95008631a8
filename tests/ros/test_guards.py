"""The guards around rclpy's callbacks, and the limits of what they log."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

pytest.importorskip('videomt_ros.msg', reason='needs ROS and the built messages')

import rclpy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from tests.ros.node_process import new_domain, wait_for
from videomt_ros.ros import logs
from videomt_ros.ros.guards import GuardedExecutor
from videomt_ros.ros.logs import Throttle

pytestmark = pytest.mark.ros


@pytest.fixture
def node():
    rclpy.init(domain_id=new_domain(), signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('guarded')
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_a_callback_or_a_take_that_raises_leaves_no_one_deaf(node, capfd):
    texts = []

    def receive(msg):
        texts.append(msg.data)
        raise ArithmeticError(msg.data)

    node.create_subscription(String, 'words', receive, 10)
    publisher = node.create_publisher(String, 'words', 10)
    wait_for(publisher.get_subscription_count, 'the subscription')
    executor = GuardedExecutor()
    executor.add_node(node)
    take = executor._take_subscription
    takes = []

    def take_but_first(subscription):
        takes.append(subscription)
        if len(takes) == 1:
            raise LookupError('no message')
        return take(subscription)

    executor._take_subscription = take_but_first
    for text in ('one', 'two'):
        publisher.publish(String(data=text))

        def came(text=text):
            executor.spin_once(timeout_sec=0.1)
            return text in texts

        wait_for(came, text)
    executor.shutdown()
    log = capfd.readouterr().err
    for reason in ('LookupError: no message', 'ArithmeticError: one', 'ArithmeticError: two'):
        assert f'Ignored what could not be handled, from /words: {reason}' in log


def test_each_kind_of_message_has_a_limit_of_its_own(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(logs, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    throttle = Throttle(period_s=5.0, max_kinds=3)
    assert throttle.allows('got 12 bytes')
    assert not throttle.allows('got 13 bytes')
    assert throttle.allows('got no bytes')
    now_s[0] += 4.0
    assert throttle.allows('got nothing')
    assert not throttle.allows('a fourth kind')
    now_s[0] += 1.0
    assert throttle.allows('got 14 bytes')
    assert not throttle.allows('got nothing')


def test_warnings_of_one_kind_are_forwarded_once_and_all_else_always():
    lines = []
    ros_logger = SimpleNamespace(
        warning=lines.append, info=lines.append, error=lines.append, debug=lines.append
    )
    handler = logs.RosHandler(ros_logger)
    for level in (logging.WARNING, logging.INFO, logging.ERROR, logging.DEBUG):
        for size in (3, 4):
            record = logging.LogRecord('', level, '', 0, f'size {size}', None, None)
            handler.emit(record)
    assert lines == ['size 3', *['size 3', 'size 4'] * 3]
