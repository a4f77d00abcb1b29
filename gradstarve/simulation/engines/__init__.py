"""The engines of `simulate`: the same arithmetic, laid out and compiled in three ways."""
