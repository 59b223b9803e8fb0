"""The time stamp in the name of a new directory."""

import datetime
import secrets


def new_stamp() -> str:
    """Return the time with a random suffix, so that jobs of the same second differ."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
