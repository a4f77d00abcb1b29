"""Pairs of handwritten digits: the laws against training on real data."""
