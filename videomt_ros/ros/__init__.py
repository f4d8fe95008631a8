"""The ROS 2 node and what serves it; the home of rclpy."""

import os

# A robot's processors are shared. By default torch's threads wait for each other by spinning, and
# take processor time from the very threads they wait for: with 7 busy processes on 4 cores a frame
# of a small network took 725 ms that way, and 20 ms with threads that sleep. Must be set before
# torch is loaded; a value that the user has set stays.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
