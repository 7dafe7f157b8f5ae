"""CURVE keys: who may ask a driver over TCP, and encryption of what goes over the wire.

A folder of keys, as ``mts keys`` makes it::

    server.key            the server's public key: clients know it by this
    server.key_secret     stays with the server
    NAME.key_secret       of a client
    clients/NAME.key      public keys of those who may ask

A client on another machine needs ``server.key`` and its own ``NAME.key_secret``.
"""

import os
import re
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from mts_driver.errors import UserError

SERVER = "server"
KEY_BYTES = 32


def make_keys(folder: Path, client: str) -> list[Path]:
    """Make a pair of keys for a client, and one for the server where there is none yet.

    Returns
    -------
    list of Path
        The files written; the secret ones can be read by their owner only.

    Raises
    ------
    UserError
        If the client's name cannot be a file's, or has keys already.
    """
    _check_curve()
    if not re.fullmatch(r"[\w-]+", client) or client == SERVER:
        raise UserError(
            f"--client {client!r}: give a name of letters, digits, - and _, other than {SERVER!r}."
        )
    secret, public = folder / f"{client}.key_secret", folder / "clients" / f"{client}.key"
    if secret.exists() or public.exists():
        raise UserError(
            f"--client {client}: {folder} has keys of that name: choose another, or remove "
            f"{client}.key_secret and clients/{client}.key first."
        )
    before = os.umask(0o077)  # before a secret is in a file, not after
    try:
        (folder / "clients").mkdir(parents=True, exist_ok=True)
        names = [client] if (folder / f"{SERVER}.key_secret").exists() else [SERVER, client]
        return [file for name in names for file in _make_pair(folder, name)]
    except OSError as error:
        raise UserError(f"cannot write keys to {folder}: {error}.") from error
    finally:
        os.umask(before)


def _make_pair(folder: Path, name: str) -> list[Path]:
    """Write both keys whole, the secret one last: it is what tells that there is a pair."""
    public = folder / f"{name}.key" if name == SERVER else folder / "clients" / f"{name}.key"
    files = [public, folder / f"{name}.key_secret"]
    with TemporaryDirectory(dir=folder) as unfinished:
        made = zmq.auth.create_certificates(unfinished, name)
        for source, target in zip(made, files, strict=True):
            os.replace(source, target)
    return files


def check_keys(keys: Path) -> tuple[bytes, bytes]:
    """Return the server's public and secret key.

    Raises
    ------
    UserError
        If the folder lacks the server's key, or knows no client, or others can read the secret.
    """
    _check_curve()
    own = _read_secret(keys / f"{SERVER}.key_secret")
    clients = list((keys / "clients").glob("*.key"))
    if not clients:
        raise UserError(
            f"--keys {keys}: no public key of a client in {keys / 'clients'}: `mts keys {keys} "
            "--client NAME` makes a pair."
        )
    for file in clients:
        _read(file)
    return own


def guard(
    context: "zmq.Context[zmq.Socket[bytes]]", socket: "zmq.Socket[bytes]", keys: Path
) -> ThreadAuthenticator:
    """Have a server's socket accept known clients only; to be stopped before the context ends.

    Raises
    ------
    UserError
        As `check_keys` does.
    """
    public, secret = check_keys(keys)
    found = ThreadAuthenticator(context)
    found.start()
    found.configure_curve(domain="*", location=keys / "clients")
    socket.curve_publickey, socket.curve_secretkey = public, secret
    socket.curve_server = True
    return found


def identify(socket: "zmq.Socket[bytes]", keys: Path) -> None:
    """Give a client's socket its own keys, and that of the server which it will talk to.

    Parameters
    ----------
    keys : Path
        A folder with ``server.key`` and one client's secret key, or such a secret file.

    Raises
    ------
    UserError
        If one is missing, or it is not clear which secret key is meant.
    """
    _check_curve()
    folder = keys if keys.is_dir() else keys.parent
    mine = [keys]
    if keys.is_dir():
        mine = [f for f in sorted(keys.glob("*.key_secret")) if f.stem != SERVER]
    if len(mine) != 1:
        names = ", ".join(file.name for file in mine) or "none"
        raise UserError(
            f"keys {keys}: the folder should have one client's secret key and has {names}: name "
            f"the file, such as {keys}/client.key_secret, or make one with `mts keys {keys}`."
        )
    socket.curve_publickey, socket.curve_secretkey = _read_secret(mine[0])
    socket.curve_serverkey = _read(folder / f"{SERVER}.key")[0]


def _check_curve() -> None:
    if not zmq.has("curve"):
        raise UserError(
            "this ZeroMQ was built without CURVE, which keys need: pip install --force-reinstall "
            "pyzmq, or reach the server through `ssh -L`."
        )


def _read_secret(file: Path) -> tuple[bytes, bytes]:
    public, secret = _read(file)
    if secret is None:
        raise UserError(f"{file} has no secret key: give the .key_secret, not the .key.")
    if file.stat().st_mode & 0o077:
        raise UserError(f"{file} can be read by others: `chmod 600 {file}`, or make a new one.")
    return public, secret


def _read(file: Path) -> tuple[bytes, bytes | None]:
    try:
        found = zmq.auth.load_certificate(file)
        for key in found:
            if key is not None and len(z85.decode(key)) != KEY_BYTES:
                raise ValueError("a key has 40 characters of ZeroMQ's base 85")
        return found
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UserError(
            f"cannot read the key {file} ({error}): `mts keys DIR` makes a folder of them; a "
            f"client needs {SERVER}.key and its own NAME.key_secret from there."
        ) from error
