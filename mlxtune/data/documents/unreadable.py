"""Why a file gives no document: a sentence for the owner, and the way out. Never fatal for the others."""


class UnreadableError(Exception):
    """``reason`` is a sentence as an error's message is; ``remedy`` an imperative, "" where there is none."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
