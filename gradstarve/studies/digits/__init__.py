"""Pairs of handwritten digits: what the laws say about them, and what training does."""
