"""A run's report at the two times when it is made: at the end of training or scoring, and when somebody asks for it.

What a report shows is `report/`'s; here it is decided what is made first, so that it can be shown. Whoever asks for the
report of a run whose data.json or findings.json is missing or damaged gets one, data.json only where the rows and the
base model are still there, and unchanged; a run that another process works in is only read.
"""

from pathlib import Path

from mlxtune.errors import MlxtuneError
from mlxtune.iteration.report.evidence import read_evidence
from mlxtune.iteration.report.page import Report, write_report
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import RunFolder, lock, open_run


def report_run(path: str | Path, *, progress: Progress = silent) -> Report:
    """Write the report of a run, whatever state it is in.

    Raises: RunError, if there is no run, or its run.json is damaged; OSError, if its folder cannot be written to.
    """
    run = open_run(Path(path))
    return write_report(run, no_data=_complete(run, progress) if run.is_finished else "")


def _complete(run: RunFolder, progress: Progress) -> str:
    """Write data.json and findings.json where they are missing; if the first cannot be made, why not."""
    from mlxtune.iteration.diagnose import write_findings

    found = read_evidence(run)
    has_data, no_data = found.data is not None, ""
    if has_data and found.findings is not None:
        return ""
    try:
        with lock(run):
            if not has_data:
                no_data = _make_data(run, progress)
            if found.findings is None or not (has_data or no_data):  # rows that are now known may show something
                write_findings(run)
    except MlxtuneError as error:
        return _told(error)
    return no_data


def _make_data(run: RunFolder, progress: Progress) -> str:
    """Write data.json; if that cannot be done, why not."""
    from mlxtune.iteration.data_facts import facts_of_run, write_data_facts

    try:
        write_data_facts(run, facts_of_run(run, progress=progress))
    except MlxtuneError as error:
        return _told(error)
    return ""


def _told(error: MlxtuneError) -> str:
    return f"{error.message} ({error.where})" if error.where else error.message
