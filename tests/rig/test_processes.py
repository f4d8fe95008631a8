"""Processes of a run: they end with the one that started them, which notices when one ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from videomt_ros.resources import resource
from videomt_ros.rig.processes import ProcessError, RigProcesses

FAST_DDS = '{http://www.eprosima.com}'
# Needs no network to load: it starts in a second.
RECORDER = 'videomt_ros.rig.recorder'
PARENT = f"""
import sys
from pathlib import Path
from videomt_ros.rig.processes import RigProcesses
folder = Path(sys.argv[1])
with RigProcesses(folder) as processes:
    processes.start('recorder', '{RECORDER}', ['--folder', str(folder / 'recording')])
    print(processes._processes['recorder'].pid, flush=True)
    while True:
        processes.next_event(0.1)
"""


def start(processes: RigProcesses, folder: Path) -> psutil.Process:
    processes.start('recorder', RECORDER, ['--folder', str(folder / 'recording')])
    wait_until_running(folder)
    return psutil.Process(processes._processes['recorder'].pid)


def wait_until_running(folder: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not (folder / 'recording' / 'tracks.jsonl').exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_processes_end_with_their_group(tmp_path):
    with pytest.raises(RuntimeError), RigProcesses(tmp_path) as processes:
        process = start(processes, tmp_path)
        raise RuntimeError
    assert not process.is_running()


def test_finish_ends_a_process_well(tmp_path):
    with RigProcesses(tmp_path) as processes:
        start(processes, tmp_path)
        processes.finish('recorder')
        assert not processes.is_running('recorder')


def test_death_of_a_process_is_noticed(tmp_path):
    with RigProcesses(tmp_path) as processes:
        start(processes, tmp_path).kill()
        with pytest.raises(ProcessError, match='recorder ended with signal SIGKILL: it logged no'):
            for _ in range(100):
                processes.next_event(0.1)


def test_last_errors_are_those_of_the_log(tmp_path):
    with RigProcesses(tmp_path) as processes:
        processes.start('camera', 'videomt_ros.rig.camera', ['--source', 'nothing.mp4'])
        with pytest.raises(ProcessError) as failure:
            for _ in range(600):
                processes.next_event(0.1)
    text = str(failure.value)
    assert text.startswith('The camera ended with exit code 1: Expected a video file')
    assert text.endswith('there is no nothing.mp4.') and '\n' not in text


def test_interrupt_comes_with_an_event_and_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with RigProcesses(tmp_path) as processes:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            processes.next_event(0.1)
        assert processes.next_event(0.1) is None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, '-c', PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until_running(tmp_path)
        parent.send_signal(number)
        assert parent.wait(30) != 0
    assert not psutil.wait_procs([child], timeout=30)[1]


def test_nodes_do_not_inherit_the_robots_network(tmp_path, monkeypatch):
    for name in ('ROS_DISCOVERY_SERVER', 'ROS_STATIC_PEERS', 'CYCLONEDDS_URI'):
        monkeypatch.setenv(name, '192.0.2.7')
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_no_such')
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/of/the/robot.xml')
    with RigProcesses(tmp_path) as processes:
        environment = start(processes, tmp_path).environ()
    assert not {'192.0.2.7', 'rmw_no_such', '/of/the/robot.xml'} & set(environment.values())
    assert environment['ROS_DOMAIN_ID'] == str(processes.domain_id)
    profile = ElementTree.parse(environment['FASTRTPS_DEFAULT_PROFILES_FILE'])
    assert [element.text for element in profile.iter(f'{FAST_DDS}address')] == ['127.0.0.1']


def test_the_profile_of_a_robot_keeps_no_network_out():
    profile = ElementTree.parse(resource('config', 'fastdds_images.xml'))
    assert not list(profile.iter(f'{FAST_DDS}interfaceWhiteList'))
    assert [element.text for element in profile.iter(f'{FAST_DDS}type')] == ['SHM', 'UDPv4']


def test_two_groups_have_two_domains(tmp_path):
    with RigProcesses(tmp_path) as first:
        start(first, tmp_path)
        assert RigProcesses(tmp_path).domain_id != first.domain_id
