"""The command line, one file a command; `options.py` is what they share."""
