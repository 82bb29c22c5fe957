"""The child process that opens strangers' files: a path a line on standard input, a document or a reason a line back.

What a hostile file can do ends here: a reader that loops is killed with the process, one that fills the memory meets
the limit (Linux; macOS knows no such limit, and there the sizes that archive.py allows are the bound), and one that
crashes leaves the parent whole. Core dumps are off, since they would hold what was read.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from mlxtune.data.documents.document import to_json
from mlxtune.data.documents.kinds import kind_of, refusal_of
from mlxtune.data.documents.unreadable import UnreadableError

MEMORY_BYTES = 3 << 30
CPU_SECONDS = 300
"""Of work on one file: the end of a process whose parent was killed while it hung."""
LONGEST_TEXT = 50_000_000
"""Characters of a document."""
NO_TEXT = "it holds no text"


def read_document(path: Path) -> dict[str, Any]:  # noqa: PLR0911 - a return for each reason
    """``{"document": ...}``, or ``{"reason": ..., "remedy": ...}`` where there is none."""
    kind = kind_of(path)
    if kind is None:
        reason, remedy = refusal_of(path)
        return {"reason": reason, "remedy": remedy}
    try:
        document = importlib.import_module(f"mlxtune.data.documents.{kind.module}").read(path)
    except UnreadableError as error:
        return {"reason": error.reason, "remedy": error.remedy}
    except MemoryError:
        return {"reason": f"it needs more than {MEMORY_BYTES >> 30} GB of memory", "remedy": "take it out, or cut it"}
    except RecursionError:
        return {"reason": "damaged: nested too deeply", "remedy": "take it out"}
    except OSError as error:
        return {"reason": f"it cannot be read: {error.strerror or type(error).__name__}", "remedy": "get it again"}
    # Whatever else a reader meets in a hostile file is the file's fault: the process is there for that.
    except Exception as error:  # noqa: BLE001
        return {"reason": f"damaged: {type(error).__name__} while it was read", "remedy": "save it again"}
    if not document.text.strip():
        return {"reason": NO_TEXT, "remedy": "take it out"}
    if len(document.text) > LONGEST_TEXT:
        return {"reason": f"its text has more than {LONGEST_TEXT:,} characters", "remedy": "cut it into several files"}
    return {"document": to_json(document)}


def limit() -> None:
    """Bound what this process may take."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(ValueError, OSError):  # a stricter limit is there already
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def limit_cpu() -> None:
    """Give this process `CPU_SECONDS` from here on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):  # a stricter limit is there already
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS, hard))


def main() -> None:
    """Answer each line of standard input until it ends."""
    limit()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        limit_cpu()
        answer = read_document(Path(json.loads(line)))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
