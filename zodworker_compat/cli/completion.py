"""`zodworker completion`, and what is completed besides verbs, options and choices."""

import json

import click
from click.shell_completion import get_completion_class

from zodworker_compat import resources
from zodworker_compat.cli.base import Verb

VARIABLE = "_ZODWORKER_COMPLETE"


@click.command(
    cls=Verb,
    short_help="Print the script that completes words in a shell.",
    sections={
        "To install": """
    bash   zodworker completion bash > ~/.local/share/bash-completion/completions/zodworker
           or, in ~/.bashrc: eval "$(zodworker completion bash)"
    zsh    zodworker completion zsh > ~/.zfunc/_zodworker
           and in ~/.zshrc, before compinit: fpath+=~/.zfunc
    fish   zodworker completion fish > ~/.config/fish/completions/zodworker.fish
    """,
        "Examples": """
      zodworker completion bash
      zodworker completion fish | source
    """,
    },
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes verbs, options, choices and the package's task identifiers.

    The command must be found as `zodworker`; the script asks it each time, without a database.
    """
    found = get_completion_class(shell)
    if found is None:  # click knows all three
        raise click.UsageError(f"{shell} is not supported.")
    click.echo(
        found(click.get_current_context().find_root().command, {}, "zodworker", VARIABLE).source()
    )


def complete_task(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Return the tasks of the package's catalogs that begin so; for `shell_complete` of click."""
    files = resources.folder("catalog").glob("*.json")
    tasks = {name for file in files for name in json.loads(file.read_text("utf-8"))["tasks"]}
    return sorted(name for name in tasks if name.startswith(typed))


def complete_catalog(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Return the names of the package's catalogs that begin so."""
    files = resources.folder("catalog").glob("*.json")
    return sorted(file.stem for file in files if file.stem.startswith(typed))
