"""Benchmarks: paired ratios in one run, never asserted as wall time."""
