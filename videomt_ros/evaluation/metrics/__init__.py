"""Metrics of the benchmarks and of the tracking literature, one file each; none needs torch."""
