"""What ``metatomic:FILE?key=value&key=value`` says; nothing is loaded here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mts_driver.errors import UserError
from mts_driver.potentials.backends import BACKENDS

KIND = "metatomic"
_OPTIONS = ("forces", "variant", "extensions", "charge", "multiplicity", "backend")


@dataclass(frozen=True)
class Specification:
    """Which model, and what of it.

    Attributes
    ----------
    file : Path
        The exported model.
    direct : bool
        ``forces=direct``: forces that the model gives beside its energy, not minus its gradient.
    variant : str, optional
        Which energy of a model with several, such as ``pbe`` for its output ``energy/pbe``.
    extensions : Path, optional
        Folder with the libraries of operators that the model needs.
    charge, multiplicity : int, optional
        Of the whole system, e, and 2S + 1.
    backend : str, optional
        Where pairs are looked for: on the ``device`` of the model, or on the ``cpu``.
    """

    file: Path
    direct: bool = False
    variant: str | None = None
    extensions: Path | None = None
    charge: int | None = None
    multiplicity: int | None = None
    backend: str | None = None

    @classmethod
    def parse(cls, spec: str) -> Specification:
        """Read a specification.

        Raises
        ------
        UserError
            If the file is left out, or an option is not known or has a value that cannot be.
        """
        name, _, query = spec.removeprefix(f"{KIND}:").partition("?")
        if not name:
            raise UserError(
                f"potential {spec!r} is incomplete: write metatomic:FILE, such as "
                "metatomic:pet-mad.pt."
            )
        given: dict[str, str] = {}
        for item in filter(None, query.split("&")):
            key, equals, value = item.partition("=")
            if key not in _OPTIONS or not equals or not value or key in given:
                raise UserError(
                    f"potential {spec!r}: {item!r} is not understood: give each of "
                    f"{', '.join(_OPTIONS)} once at most, as in ?forces=direct&charge=-1."
                )
            given[key] = value
        if given.get("forces", "direct") != "direct":
            raise UserError(
                f"potential {spec!r}: forces={given['forces']} is not known: use forces=direct, or "
                "leave it out for minus the gradient of the energy."
            )
        extensions, backend = given.get("extensions"), given.get("backend")
        if backend is not None and backend not in BACKENDS:
            raise UserError(
                f"potential {spec!r}: backend={backend!r} is not known: use cpu or device."
            )
        return cls(
            Path(name),
            direct="forces" in given,
            variant=given.get("variant"),
            extensions=Path(extensions) if extensions else None,
            charge=_whole(spec, "charge", given.get("charge")),
            multiplicity=_whole(spec, "multiplicity", given.get("multiplicity")),
            backend=backend,
        )

    def __str__(self) -> str:
        said = {
            "forces": "direct" if self.direct else None,
            "variant": self.variant,
            "extensions": self.extensions,
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "backend": self.backend,
        }
        query = "&".join(f"{key}={value}" for key, value in said.items() if value is not None)
        return f"{KIND}:{self.file}{'?' if query else ''}{query}"

    def require_files(self, within: Path = Path()) -> None:
        """Refuse files that are not there.

        Parameters
        ----------
        within : Path
            The folder that relative paths are looked up in.

        Raises
        ------
        UserError
            If the model is no file, or the extensions no folder.
        """
        if not (within / self.file).is_file():
            raise UserError(
                f"potential '{self}': there is no file {str(self.file)!r}: give the path of a "
                "model that was exported with metatomic."
            )
        if self.extensions is not None and not (within / self.extensions).is_dir():
            raise UserError(
                f"potential '{self}': extensions={self.extensions} is no folder: give the one that "
                "was collected when the model was exported."
            )


def for_system(spec: str, charge: int, multiplicity: int) -> str:
    """Return the specification of the same model for a system of a charge (e) and multiplicity.

    Whether the model takes them is found when it is loaded.

    Raises
    ------
    UserError
        If the specification has others.
    """
    spec = spec.replace("{charge}", str(charge)).replace("{multiplicity}", str(multiplicity))
    found, chosen = Specification.parse(spec), {}
    for name, said, default in (("charge", charge, 0), ("multiplicity", multiplicity, 1)):
        own = getattr(found, name)
        if said != default and own is not None and own != said:
            raise UserError(
                f"potential {spec!r} is for a {name} of {own}, but the structure says {said}: "
                "correct one of them."
            )
        if said != default:
            own = said
        chosen[name] = own
    return str(replace(found, charge=chosen["charge"], multiplicity=chosen["multiplicity"]))


def absolute(spec: str) -> str:
    """Return the specification of the same model for a process in another folder."""
    found = Specification.parse(spec)
    extensions = found.extensions and found.extensions.resolve()
    return str(replace(found, file=found.file.resolve(), extensions=extensions))


def _whole(spec: str, name: str, value: str | None) -> int | None:
    try:
        found = None if value is None else int(value)
    except ValueError:
        found = None
    if value is not None and (found is None or (name == "multiplicity" and found < 1)):
        allowed = "a whole number" + (", 1 or above" if name == "multiplicity" else ", in e")
        raise UserError(f"potential {spec!r}: {name}={value} cannot be: give {allowed}.")
    return found
