"""The time stamp in the name of a new directory."""

import datetime
import secrets

STAMP = "CONVTRAIN_STAMP"
"""Environment variable with the stamp of a directory that several processes share."""


def new_stamp() -> str:
    """Return the time and a random suffix, which tells two jobs of one second apart."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
