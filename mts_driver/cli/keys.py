"""``mts keys``: who may ask ``mts serve --zmq`` over a network."""

from pathlib import Path
from typing import Annotated

import typer

from mts_driver.cli.console import plain_console


def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys go.")],
    client: Annotated[
        str, typer.Option(help="Name of the client; another name later adds another client.")
    ] = "client",
) -> None:
    """Make CURVE keys, for `mts serve --zmq tcp://HOST:PORT --keys DIR`.

    The server needs DIR as it is. A client needs server.key and its own NAME.key_secret from there,
    in one folder, and names it as `keys` in the <parameters> of its <ffdirect>.
    """
    from mts_driver.drivers.zmq.keys import make_keys
    from mts_driver.files import require_writable

    require_writable(folder, name=f"DIR {folder}")

    console = plain_console()
    for file in make_keys(folder, client):
        secret = file.suffix == ".key_secret"
        console.print(f"written: {file}{' (secret)' if secret else ''}")
    console.print(
        f"the client's machine needs {folder / 'server.key'} and "
        f"{folder / f'{client}.key_secret'}; a running server reads keys at its next start"
    )
