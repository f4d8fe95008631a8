"""Processes that play, record and replay around the running node."""
