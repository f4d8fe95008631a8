"""Measurements of speed: of a frame, of scoring and of a training step."""
