"""The time stamp in the name of a new directory."""

import datetime
import secrets

STAMP = "CONVTRAIN_STAMP"
"""Environment variable with the stamp of a directory that several processes share."""


def new_stamp() -> str:
    """Time and a random suffix, so that two jobs started in one second never share a folder."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
