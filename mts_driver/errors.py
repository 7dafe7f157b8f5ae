"""The one exception that users are meant to see."""


class UserError(Exception):
    """Something the user can put right: bad input, a missing file, a port in use.

    The message names the argument, its value, what is allowed and the remedy. The command line
    prints it without a traceback and exits with status 2.
    """


class RankFailed(Exception):
    """What went wrong on one process while others wait for it, so that all have to end."""
