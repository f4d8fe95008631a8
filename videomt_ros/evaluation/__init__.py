"""Evaluation: predict a data set, score result files, and report what was found."""
