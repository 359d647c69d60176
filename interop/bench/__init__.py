"""Benchmarks: what the parts cost, beside the least that such work can cost on this machine."""
