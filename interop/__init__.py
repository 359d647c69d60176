"""Where the real programs meet: the demo street; later conformance suites, peers and fuzzing."""
