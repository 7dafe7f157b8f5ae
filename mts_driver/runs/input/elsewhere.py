"""Drivers on other machines, whose addresses are known only when a job starts."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from mts_driver.drivers.ipi_socket.transport import Address
from mts_driver.errors import UserError

_WAY = "NAME=HOST:PORT for an <ffsocket>, NAME=tcp://HOST:PORT for an <ffdirect> over ZeroMQ"


def parse_elsewhere(texts: list[str]) -> dict[str, str]:
    """Read ``NAME=ADDRESS`` of several drivers.

    Raises
    ------
    UserError
        If one has no name or no address, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, address = text.partition("=")
        if not name or not address or name in found:
            raise UserError(f"--elsewhere {text!r}: write {_WAY}, once for each.")
        found[name] = address
    return found


def put_elsewhere(root: ET.Element, addresses: Mapping[str, str]) -> None:
    """Change an input or checkpoint so that somebody else starts these drivers.

    An ``<ffsocket>`` of any mode listens at ``HOST:PORT`` of this machine, and an ``<ffdirect>``
    asks the driver that listens at ``tcp://HOST:PORT``. What they are to serve stays, so that a
    driver of another model is refused.

    Parameters
    ----------
    root : Element
        ``<simulation>``; changed.
    addresses : mapping of str to str
        By name of the force field.

    Raises
    ------
    UserError
        If there is no force field of the name, or the address is not of its kind.
    """
    known = {
        node.get("name", "").strip(): node
        for node in root.iter()
        if node.tag in ("ffsocket", "ffdirect")
    }
    for name, address in addresses.items():
        if name not in known:
            raise UserError(
                f"--elsewhere {name}={address}: the input has no <ffsocket> or <ffdirect> of this "
                f"name: use {', '.join(known)}."
            )
        node = known[name]
        if (node.tag == "ffdirect") != address.startswith("tcp://"):
            raise UserError(f"--elsewhere {name}={address}: {name!r} is an <{node.tag}>: {_WAY}.")
        if node.tag == "ffdirect":
            _set_parameter(node, "address", address)
            continue
        found = Address.parse(address, "inet", option="--elsewhere")
        node.set("mode", "inet")
        for tag, text in (("address", found.host), ("port", str(found.port))):
            one = node.find(tag)
            if one is None:
                one = ET.SubElement(node, tag)
            one.text = f" {text} "
        if "model" in (node.findtext("parameters") or ""):
            _set_parameter(node, "start", "no")


def _set_parameter(node: ET.Element, key: str, value: str) -> None:
    parameters = node.find("parameters")
    if parameters is None:
        parameters = ET.SubElement(node, "parameters")
    items = [item.strip() for item in (parameters.text or "").strip("{} \n\t").split(",")]
    others = [item for item in items if item and not re.match(rf"{key}\s*:", item)]
    parameters.text = f" {{ {', '.join([*others, f'{key}: {value}'])} }} "
