"""A run's report at the two times when it is made: at the end of training or scoring, and when somebody asks for it.

What a report shows is `report/`'s; here it is decided what is made first, so that it can be shown. Whoever asks for the
report of a run that has no data.json gets one, where the rows and the base model are still there, and unchanged; a run
that another process works in is only read.
"""

from pathlib import Path

from mlxtune.errors import MlxtuneError
from mlxtune.iteration.report.page import Report, write_report
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import RunFolder, lock, open_run


def report_run(path: str | Path, *, progress: Progress = silent) -> Report:
    """Write the report of a run, whatever state it is in.

    Raises: RunError, if there is no run, or its run.json is damaged; OSError, if its folder cannot be written to.
    """
    run = open_run(Path(path))
    if not run.is_finished or run.data.is_file():
        return write_report(run)
    return write_report(run, no_data=_make_data(run, progress))


def _make_data(run: RunFolder, progress: Progress) -> str:
    """Write data.json; if that cannot be done, why not."""
    from mlxtune.iteration.data_facts import facts_of_run, write_data_facts

    try:
        with lock(run):
            write_data_facts(run, facts_of_run(run, progress=progress))
    except MlxtuneError as error:
        return f"{error.message} ({error.where})" if error.where else error.message
    return ""
