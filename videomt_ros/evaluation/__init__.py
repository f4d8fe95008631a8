"""How good and how fast: scores against the truth, live reports and benchmarks."""
