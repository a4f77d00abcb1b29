"""The engines of `simulate`: one arithmetic, laid out and compiled in three ways."""
