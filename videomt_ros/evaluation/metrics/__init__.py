"""What the benchmarks and the tracking literature measure: one file per metric, numpy alone."""
