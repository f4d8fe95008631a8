"""The ROS 2 node and its parts; rclpy and messages are used here and in rig/ only."""

import os

# A robot's processors are shared. By default torch's threads wait for each other by spinning, and
# so take processor time from the threads they wait for: with 7 busy processes on 4 cores, a frame
# of a small network took 725 ms that way, and 20 ms with threads that sleep. This must be set
# before torch is loaded, and does not override the user's value.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
