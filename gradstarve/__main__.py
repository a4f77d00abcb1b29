"""`python -m gradstarve` is the command `gradstarve`."""

from gradstarve.cli import main

main("python -m gradstarve")
