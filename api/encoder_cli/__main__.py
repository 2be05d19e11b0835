"""The `encoder` command: every process of the service, and what an admin does by hand."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from encoder_core.errors import ConfigurationError, EncoderError

app = typer.Typer(
    help="Encoder: one HTTP request in, transcoded files and a webhook out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
owners = typer.Typer(help="Owners of jobs, and their shares.", no_args_is_help=True)
app.add_typer(owners, name="owners")

SCOPES = ("jobs:read", "jobs:write", "admin")  # encoder_api.contract has what they allow

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Default: PORT, or 8080. 0: any.")]


def _checked_owner(name: str) -> str:
    from encoder_core.specs import LABEL_PATTERN

    if re.fullmatch(LABEL_PATTERN, name) is None:
        raise typer.BadParameter(
            "lower-case letters, digits and hyphens, 63 at most, with none of the hyphens at an end"
        )
    return name


def _checked_key_name(name: str) -> str:
    if not 1 <= len(name) <= 128:
        raise typer.BadParameter("1 to 128 characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("must be text in UTF-8") from None
    return name


# The parts are imported where they are used: `encoder --help` need not load a database driver.


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Default: ENCODER_HOST, or 127.0.0.1.")] = None,
    port: Port = None,
) -> None:
    """API, dashboard, webhooks and workers in one process. The whole service on one machine."""
    from encoder_cli.processes import run_up

    run_up(host=host, port=port)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Default: ENCODER_HOST, or 127.0.0.1.")] = None,
    port: Port = None,
) -> None:
    """The HTTP API and the dashboard alone. Needs MySQL."""
    from encoder_cli.processes import run_api

    run_api(host=host, port=port)


@app.command()
def worker() -> None:
    """Takes jobs and runs them as child processes; also sends webhooks. Needs MySQL."""
    from encoder_cli.processes import run_worker

    run_worker()


@app.command()
def webhooks() -> None:
    """Sends what the outbox holds. Needs MySQL."""
    from encoder_cli.processes import run_webhooks

    run_webhooks()


@app.command("operator")
def run_operator() -> None:
    """Runs jobs in Pods on Kubernetes. Needs MySQL, and the `operator` extra."""
    try:
        from encoder_operator.__main__ import main as operate
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed here; the operator has an image of its own "
            "(operator/Dockerfile), or install encoder[operator]"
        ) from error
    raise typer.Exit(operate())


@app.command()
def retention(
    hours: Annotated[
        int | None, typer.Option(min=0, help="Default: RETENTION_HOURS, or 168.")
    ] = None,
) -> None:
    """Deletes finished jobs older than the retention time, then ends. For a CronJob."""
    from encoder_cli.processes import run_retention

    deleted = run_retention(hours=hours)
    typer.echo(f"{deleted} {'job' if deleted == 1 else 'jobs'} deleted")


@app.command()
def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Checks every row of the record against its rules. Ends with 1 when one stays broken."""
    from encoder_cli.fsck import run_fsck

    raise typer.Exit(0 if run_fsck(repair=repair, as_json=as_json) else 1)


@app.command()
def demo(
    source: Annotated[
        str | None, typer.Option(help="A file or an http, https or ftp URL. Default: a made clip.")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where everything of the demo is kept.")
    ] = Path("var/demo"),
) -> None:
    """Runs one job from end to end on this machine and shows what happens."""
    from encoder_cli.demo import DemoFailed, check_demo_folder, run_demo

    console, complaints = Console(highlight=False), Console(highlight=False, stderr=True)
    try:
        run_demo(source=source, folder=check_demo_folder(folder), console=console)
    except DemoFailed as error:
        # Escaped: what went wrong may be named in brackets.
        complaints.print(f"[bold red]The demo failed.[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(callback=_checked_key_name, help="What the key is for.")],
    owner: Annotated[
        str, typer.Option(callback=_checked_owner, help="Whose jobs it sees.")
    ] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(SCOPES)}. May be repeated. Default: the first two."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Makes a key and prints it. It is shown this once."""
    from encoder_cli.keys import make_key

    unknown = sorted(set(scope or []) - set(SCOPES))
    if unknown:
        raise ConfigurationError(f"there is no scope {unknown[0]}; known are {', '.join(SCOPES)}")
    key = make_key(name=name, owner=owner, scopes=scope or list(SCOPES[:2]))
    typer.echo(json.dumps({"key": key, "name": name, "owner": owner}) if as_json else key)


@keys.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Lists keys, never their secrets."""
    from encoder_cli.keys import print_keys

    print_keys(as_json=as_json)


@keys.command("revoke")
def revoke_key(prefix: Annotated[str, typer.Argument(help="The key's public part.")]) -> None:
    """Revokes a key: within two seconds no process takes it any more."""
    from encoder_cli.keys import revoke

    if not revoke(prefix):
        typer.echo(f"No live key begins with {prefix}", err=True)
        raise typer.Exit(1)


@keys.command("rewrap")
def rewrap_secrets(
    forget_lost: Annotated[
        bool, typer.Option("--forget-lost", help="Delete what no key opens any more.")
    ] = False,
) -> None:
    """Puts every sealed secret under the first key of ENCODER_SECRET_KEY."""
    from encoder_cli.keys import rewrap_secrets

    done = rewrap_secrets(forget_lost=forget_lost)
    typer.echo(f"{done.rewrapped} rewrapped, {done.current} under the current key already")
    if done.forgotten:
        typer.echo(f"{done.forgotten} deleted: their jobs ask for their credentials again")
    if done.lost:
        typer.echo(
            f"{done.lost} cannot be opened by any key in ENCODER_SECRET_KEY; add the key that "
            "sealed them, or delete them with --forget-lost",
            err=True,
        )
        raise typer.Exit(1)


@owners.command("list")
def list_owners(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Lists who has jobs, how many of them wait and run, and the weight of each."""
    from encoder_cli.owners import print_owners

    print_owners(as_json=as_json)


@owners.command("set-weight")
def set_weight(
    owner: Annotated[str, typer.Argument(callback=_checked_owner)],
    weight: Annotated[int, typer.Argument(min=1, max=1000, help="1 is what everybody has.")],
) -> None:
    """Gives an owner so many times the share of the places that one with weight 1 has."""
    from encoder_cli.owners import set_weight

    known = set_weight(owner, weight)
    typer.echo(f"{owner} has weight {weight}" + ("" if known else ", and no job so far"))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"encoder {version('encoder')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Encoder: one HTTP request in, transcoded files and a webhook out."""


def main() -> None:
    """Run the command; a setting that is wrong ends it with a sentence and exit code 2."""
    try:
        app()
    except ValidationError as error:
        from encoder_db.settings import wrong_settings

        for sentence in wrong_settings(error):
            print(f"encoder: {sentence}", file=sys.stderr)
        sys.exit(2)
    except EncoderError as error:
        print(f"encoder: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
