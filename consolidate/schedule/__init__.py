"""Commands of ours that the host runs by itself at set times: a timer of systemd's, or lines for cron."""

from consolidate.schedule.files import files_of
from consolidate.schedule.host import Host, Installed, apply, changes, check_writable, installed, scheduler
from consolidate.schedule.job import LOCK_TIMEOUT, TASKS, Job, check_readable, doubts, job_for, program_of
from consolidate.schedule.when import When, parse

__all__ = [
    "LOCK_TIMEOUT",
    "TASKS",
    "Host",
    "Installed",
    "Job",
    "When",
    "apply",
    "changes",
    "check_readable",
    "check_writable",
    "doubts",
    "files_of",
    "installed",
    "job_for",
    "parse",
    "program_of",
    "scheduler",
]
