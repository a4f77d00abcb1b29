"""The page of the command line, from the same definitions that `gradstarve --help` prints."""

from __future__ import annotations

from typing import Any

from gradstarve.ground import text

INTRO = """# Command line

`gradstarve` and `python -m gradstarve` are the same program; it runs in float64. Every command ends with its settings
and versions stored beside its figures, and `--help` prints what stands here. Completion of names and options in your
shell:

```sh
gradstarve --install-completion
```
"""


def page() -> str:
    """All commands with their options, defaults and examples, in Markdown."""
    import typer.main

    from gradstarve.cli.main import app

    group: Any = typer.main.get_command(app)
    parts = [INTRO]
    for name, command in group.commands.items():
        if not command.hidden:
            parts += section(f"gradstarve {name}", command)
    return "\n".join(parts)


def section(title: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-") and not p.hidden]
    usage = " ".join([title, *(f"[{p.name}]" for p in arguments), "[options]"])
    lines = [f"## {title}", "", "```text", usage, "```", "", plain(command.help or ""), ""]
    if command.epilog:
        lines += ["```sh", *examples(command.epilog), "```", ""]
    for parameter in (*arguments, *options):
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        lines += [names, f": {plain(parameter.help or '')}{default(parameter)}", ""]
    return lines


def examples(epilog: str) -> list[str]:
    """The commands of an epilog, "Example: gradstarve ..." or several of them."""
    return [f"gradstarve {part.strip()}" for part in epilog.partition(":")[2].replace("\n", " ").split("gradstarve ")[1:]]


def default(parameter: Any) -> str:
    """The default, where there is one that the help does not state itself."""
    value = parameter.default
    if value is None or value is False or "[default" in (parameter.help or "") or value == () or value == []:
        return ""
    if isinstance(value, float):
        value = text.number(value)
    return f" Default: {'on' if value is True else f'`{value}`'}."


def plain(words: str) -> str:
    """Help as Markdown that shows every character."""
    for character in r"\*_[]<>|":
        words = words.replace(character, "\\" + character)
    return words
