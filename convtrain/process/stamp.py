"""The time stamp in the name of a new directory."""

import datetime
import secrets


def new_stamp() -> str:
    """Return the time and a random suffix, which tells two jobs of one second apart."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
