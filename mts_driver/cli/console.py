"""Where commands print."""

from rich.console import Console


def plain_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that shows text as it is.

    No markup and no emoji, which would swallow parts of names such as ``run[2]`` or ``a:b:c``; no
    folding, so that commands and paths can be copied.
    """
    return Console(
        stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
    )
