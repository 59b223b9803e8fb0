"""Write the page of a run at its end, which never fails the run."""

import logging
from typing import TYPE_CHECKING

from convtrain.config.schema import Config
from convtrain.errors import error_line
from convtrain.report.page import write_report
from convtrain.report.tested import store_mistakes
from convtrain.run import commands
from convtrain.run.directory import Run

if TYPE_CHECKING:
    from convtrain.data.images import Images

log = logging.getLogger("convtrain")


def write_at_end(run: Run, config: Config, images: "Images") -> None:
    """Store the pictures of the most confident mistakes, and write the page.

    Args:
        images: those of the test, which the page cannot read again later.
    """
    try:
        store_mistakes(run, images)
        write_report(run, config.model_dump(by_alias=True))
    except Exception as error:
        again = commands.verb_command("report", run.path)
        log.warning("%s: not written, %s; to try again: %s", run.report, error_line(error), again)
