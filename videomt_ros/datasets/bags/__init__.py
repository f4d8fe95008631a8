"""Bags as sources of images and as data sets, read and written without ROS."""
