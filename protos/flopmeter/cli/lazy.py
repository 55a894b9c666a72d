"""A group of commands of which only the one that runs is imported: any command starts in under 0.25 s."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

#: command -> (module that holds it, attribute, one line of help).
Commands = Mapping[str, tuple[str, str, str]]


class LazyGroup(click.Group):
    """Commands that stand beside the group come first, those of `lazy` behind them."""

    def __init__(self, *args: Any, lazy: Commands, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = self._lazy[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as e:
            if e.name and e.name.startswith("flopmeter"):
                raise
            raise click.ClickException(
                f"{cmd_name} needs the package {e.name!r}, which is not installed here; "
                "install flopmeter[agent] on a GPU node, flopmeter[collector] where the books are kept"
            ) from e
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        here = [(name, self.commands[name].get_short_help_str(80)) for name in super().list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([*here, *((name, text) for name, (_, _, text) in self._lazy.items())])
