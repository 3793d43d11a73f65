"""The command `pplebm`: words of a shell become arguments of the library's functions, and results lines of text.

`learning` has the commands that learn, `pages` those about pages of the galleries, `citation` their BibTeX, `use` those
that use a run: `anomaly` scores data, `evaluate` tells their evidence, `estimates` the standard errors of parameters,
`calibrate` whether posteriors are right, and `picture` draws layers. `group` gives all of them their manners: errors in
one or two lines, exit statuses, "did you mean". Importing this room loads neither torch nor a backend; commands do so
when they run.
"""

from __future__ import annotations

import click

from pplebm import __version__
from pplebm.cli import anomaly, calibrate, citation, estimates, evaluate, learning, pages, picture, use
from pplebm.cli.group import Group


@click.group(cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pplebm")
@click.option("--traceback", is_flag=True, help="Show the whole traceback of an unexpected error.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Hierarchical latent-variable generators with energy-tilted priors, declared as Pyro programs.

    Start with `pplebm demo`; then `pplebm list`, `pplebm copy PAGE my_model.py`, `pplebm check my_model.py` and
    `pplebm fit my_model.py --data my_data.npy`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


OF_RUNS = (use, anomaly, evaluate, estimates, calibrate, picture)  # modules of commands that take a run
for command in (
    *pages.COMMANDS,
    *citation.COMMANDS,
    *learning.COMMANDS,
    *(c for module in OF_RUNS for c in module.COMMANDS),
):
    main.add_command(command)
