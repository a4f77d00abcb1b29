"""How fast it is, beside what it is compared with: `python -m benchmarks`. Not part of the installed package."""
