"""A scheduler of one machine that speaks as SLURM does: sbatch, srun, sacct, scontrol.

Which of them it is follows from the name that it is called by. Its queue is the folder
``STUB_QUEUE``: a file for each job with its state, and one for each that is to be queued again.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

QUEUE = Path(os.environ.get("STUB_QUEUE", ""))
ARRAY = "4711"


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    (QUEUE / "script").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    numbers = range(int(array[1]) + 1) if array else [None]
    for number in numbers:
        job = ARRAY if number is None else f"{ARRAY}_{number}"
        (QUEUE / job).write_text("PENDING")
        subprocess.Popen(
            [sys.executable, __file__, "run", job, script], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    print(f"Submitted batch job {ARRAY}")


def run(job: str, script: str) -> None:
    """Run a job, again as long as it asks for that."""
    text, restarts = (QUEUE / "script").read_text(), 0
    copy = QUEUE / f"{job}.sh"
    copy.write_text(text)
    while True:
        place = {"SLURM_JOB_ID": job.replace("_", "00"), "SLURM_RESTART_COUNT": str(restarts)}
        if "_" in job:
            array, number = job.split("_")
            place |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number}
        (QUEUE / job).write_text("RUNNING")
        (QUEUE / f"{job}.restarts").write_text(str(restarts))
        status = subprocess.call(["bash", str(copy)], env={**os.environ, **place})
        again = QUEUE / f"{job}.again"
        if not again.exists():
            break
        again.unlink()
        restarts += 1
    (QUEUE / job).write_text("FAILED" if status else "COMPLETED")


def srun(*arguments: str) -> None:
    options = []
    while arguments and arguments[0].startswith("-"):
        taken = 2 if arguments[0] in ("--output", "--error") else 1
        options.append(arguments[:taken])
        arguments = arguments[taken:]
    task = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    os.environ.update(task)
    job, number = ARRAY, os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    for option in options:
        if option[0] in ("--output", "--error"):
            name = option[1].replace("%A", job).replace("%a", number).replace("%t", "0")
            name = name.replace("%j", job)
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1 if option[0] == "--output" else 2)
    os.execvp(arguments[0], arguments)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for path in QUEUE.iterdir():
        if re.fullmatch(r"\d+(_\d+)?", path.name):
            print(f"{path.name}|{path.read_text()}|node")


def scontrol(verb: str, job: str) -> None:
    assert verb == "requeue"
    (QUEUE / f"{job}.again").touch()


if __name__ == "__main__":
    name = Path(sys.argv[0]).stem
    if name == "slurm_stub":
        run(*sys.argv[2:])
    else:
        globals()[name](*sys.argv[1:])
