"""Endless videos of drawn shapes with exact truth, and data sets made of them."""
