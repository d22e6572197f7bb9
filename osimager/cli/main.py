"""The command `osimager`: its verbs by name, each imported only when it is called, so that start-up stays fast."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from typing import NoReturn

import click

from osimager import __version__

# verb → (module, what `--help` says). Kept here so that `--help` imports none of them.
VERBS = {
    "build": ("build", "Build an image of each TARGET."),
    "plan": ("plan", "Show what a build would do, without doing it."),
    "explain": ("explain", "Show where a value comes from: file, line, and what it overrode."),
    "image": ("image", "List, show, run and remove finished images."),
    "iso": ("iso", "List, fetch, make and verify installer ISOs."),
    "spec": ("spec", "List, show and check specs."),
    "platform": ("platform", "List platforms."),
    "location": ("location", "List locations."),
    "config": ("settings", "Get, set and list settings."),
    "schema": ("schema", "Print the JSON Schema of a kind of file."),
    "doctor": ("doctor", "Show what this host can do, and what it lacks."),
    "ps": ("ps", "List the builds that run."),
    "logs": ("logs", "Show what a build tells or told."),
    "stop": ("stop", "End a running build as Ctrl-C does."),
    "console": ("console", "Attach to a running build's guest."),
    "resume": ("resume", "Go on with a failed build from its last good layer."),
    "layer": ("layer", "List, show and remove the layers that builds go on from."),
    "gc": ("gc", "Sweep what crashed builds left behind."),
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the verbs in the order of a first day's work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb called `cmd_name`."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"osimager.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="osimager")
def command() -> None:
    """From a vendor's installer ISO to a verified, registered image.

    \b
    osimager build debian-12            install, provision, seal, verify, register
    osimager image path debian-12       the newest image's path, for scripts
    """


def main() -> NoReturn:
    """Run the command line and exit with the status that design.md gives each kind of end."""
    gc.set_threshold(50_000, 20, 20)  # start-up makes a lot that stays: collecting it cost a plan 20 ms
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `osimager … | head` ends quietly
    try:
        command(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except BaseException as error:  # the one place where every end becomes a status
        from osimager.cli.report import report

        sys.exit(report(error))
    sys.exit(0)
