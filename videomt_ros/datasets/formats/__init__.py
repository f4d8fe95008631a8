"""Annotation and result files of the benchmarks, one module per format."""
