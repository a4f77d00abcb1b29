"""Whole experiments, each a function of stored settings; the commands of `gradstarve` compute and draw them."""
