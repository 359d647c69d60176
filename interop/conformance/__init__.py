"""Suites in which published vectors and foreign implementations judge this stack."""
