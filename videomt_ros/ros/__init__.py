"""The ROS 2 node and what serves it; the home of rclpy."""
