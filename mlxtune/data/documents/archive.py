"""ZIP files of strangers (DOCX, PPTX, XLSX, EPUB): looked at before anything in them is unpacked.

Nothing is ever written to the disk, so that a name such as ``../../x`` leads nowhere. A bomb says how large it is, or
is refused by zipfile where it lies: no more is read of a member than it declared.
"""

import zipfile
from pathlib import Path

from mlxtune.data.documents.unreadable import UnreadableError

LARGEST = 256 << 20
"""Bytes that an archive may unpack to."""
MOST_MEMBERS = 20_000
STEEPEST = 400
"""How many times larger a member may become, if it is of any size: real ones stay below 100."""
OF_ANY_SIZE = 8 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def check_archive(path: Path, *, holds: str) -> None:
    """Raises: UnreadableError, for what is no ZIP file, is encrypted, damaged or a bomb, or lacks ``holds``."""
    with path.open("rb") as file:
        beginning = file.read(8)
    if beginning == _OLE:  # Office puts an encrypted document into an old container
        raise UnreadableError("encrypted, or in Office's old format", "save it without a password, in today's format")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableError("damaged: it is no whole ZIP file", "get it again, or save it again") from error
    if len(members) > MOST_MEMBERS:
        raise UnreadableError(f"it holds {len(members):,} files, more than {MOST_MEMBERS:,}", "take it out")
    total = sum(member.file_size for member in members)
    steep = any(
        member.file_size > OF_ANY_SIZE and member.file_size > STEEPEST * max(1, member.compress_size)
        for member in members
    )
    if total > LARGEST or steep:
        raise UnreadableError(f"it would unpack to {total >> 20:,} MB, as a ZIP bomb does", "take it out")
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableError("encrypted", "save it without a password")
    if holds not in {member.filename for member in members}:
        raise UnreadableError(f"it has no {holds} in it, so it is not what its name says", "give it its right ending")
