"""The command line: ``mixwright`` or ``python -m service.cli.main``."""

import importlib
from typing import ClassVar

import click

from service.cli import EXIT_STATUSES


class Commands(click.Group):
    """Commands by name, each loaded when it is called: none waits for what another one needs."""

    TABLE: ClassVar[dict[str, dict[str, tuple[str, str]]]] = {
        "A mixture from runs you have": {
            "fit": ("service.cli.fit", "The best mixture by the runs of two tables, or of one."),
            "import": ("service.cli.apply", "Read another tool's configuration as a domain set."),
        },
        "With a service": {
            "apply": ("service.cli.apply", "Bring about what a file asks for: domains, mixture, launch."),
            "status": ("service.cli.work", "How far an optimization, a launch or everything is."),
            "watch": ("service.cli.work", "Follow an optimization or a launch to its end."),
            "runs": ("service.cli.work", "The runs of an optimization, with what they measured."),
            "mixture": ("service.cli.mixture", "Mixtures of a running service."),
            "whatif": ("service.cli.mixture", "What an optimization's runs predict of weights of your own."),
            "compare": ("service.cli.mixture", "Two or more mixtures, domain by domain and task by task."),
            "launch": ("service.cli.work", "Start the training run of a mixture."),
            "cancel": ("service.cli.work", "Stop an optimization or a launch."),
            "swarm": ("service.cli.swarm", "Swarms of a running service that are trained elsewhere."),
        },
        "The service itself": {
            "serve": ("service.cli.serve", "Run the service: API, dashboard and workers, until Ctrl-C."),
            "doctor": ("service.cli.doctor", "Look at the installation and the service, and say what to do."),
            "demo": ("service.cli.serve", "Find a mixture for real text, and train a model on it."),
            "token": ("service.cli.serve", "Print the bearer token, making one on first use."),
            "tokens": ("service.cli.tokens", "Tokens of users and programs, with scopes."),
            "web": ("service.cli.serve", "Run one web process alone."),
            "migrate": ("service.cli.serve", "Bring the database to the newest schema."),
            "backup": ("service.cli.backup", "Write the data directory to one file."),
            "restore": ("service.cli.backup", "Make a new data directory from a backup."),
            "copy-database": ("service.cli.backup", "Copy every row to another, empty database."),
            "calibrate": ("service.cli.calibrate", "Measure how fast this device trains proxies."),
            "export": ("service.cli.serve", "Write the model of a finished run as a Hugging Face folder."),
            "average": ("service.cli.serve", "Write the mean of several saved models."),
            "completion": ("service.cli.main", "Print what makes a shell complete these commands."),
        },
    }
    """Section -> name -> its module and what it does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, section by section."""
        return [name for section in self.TABLE.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; None for a name that is none."""
        for section in self.TABLE.values():
            if cmd_name in section:
                module = importlib.import_module(section[cmd_name][0])
                found = vars(module).values()
                return next(
                    each for each in found if isinstance(each, click.Command) and each.name == cmd_name
                )
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections, without loading a command."""
        for title, section in self.TABLE.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in EXIT_STATUSES.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mixwright")
def main() -> None:
    """Find the data mixture for pretraining a language model, with its evidence."""


_WHERE = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/mixwright.fish"}


@click.command(epilog='Example: eval "$(mixwright completion bash)", as a line of ~/.bashrc')
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print what makes a shell complete these commands, for its start-up file."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of the choice"
    click.echo(f"# in {_WHERE[shell]}")
    click.echo(kind(main, {}, "mixwright", "_MIXWRIGHT_COMPLETE").source())


if __name__ == "__main__":
    main()
