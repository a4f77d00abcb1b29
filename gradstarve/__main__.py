"""The command `gradstarve`, also as `python -m gradstarve`."""

from gradstarve.cli import _stop as cli_stop


def main(program: str = "gradstarve") -> None:
    """Run the command under the name by which it is called; it can be stopped from now on, while the rest still loads."""
    cli_stop.listen()
    from gradstarve.cli import main as cli

    cli.main(program)


if __name__ == "__main__":
    main("python -m gradstarve")
