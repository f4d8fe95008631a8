"""Processes that play images to the running node and record its results."""
