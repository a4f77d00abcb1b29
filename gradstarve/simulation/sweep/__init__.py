"""Sweeps over seeds and settings: planned, run in blocks, stored, resumed and summed up."""
