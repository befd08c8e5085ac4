"""``mixwright completion``: click's own completion, which asks the program itself what comes next."""

import click

_WHERE = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/mixwright.fish"}


@click.command(epilog='Example: eval "$(mixwright completion bash)", as a line of ~/.bashrc')
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print what makes a shell complete these commands, for its start-up file."""
    from click.shell_completion import get_completion_class

    from service.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of the choice"
    click.echo(f"# in {_WHERE[shell]}")
    click.echo(kind(main, {}, "mixwright", "_MIXWRIGHT_COMPLETE").source())
