"""Whole experiments, each one function of stored settings: what the commands `starve` and `digits` compute and draw."""
