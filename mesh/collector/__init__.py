"""A collector: a root of its area on one side, a connection to the head-end on the other."""
