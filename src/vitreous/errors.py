"""Every exception that vitreous raises on purpose.

    VitreousError            something went wrong; exit status 1
    ├── UserError            the command, a setting or the pictures need a change; exit status 2
    │   ├── ConfigError      a setting with a wrong name, type or value
    │   ├── DataError        a folder or table that can't be learned from
    │   ├── RunError         a run folder that exists, is missing, is in use or is damaged
    │   └── WeightsError     a file of weights that is damaged, or doesn't fit
    ├── UnreadablePicture    one file that can't be decoded; the caller leaves it out and lists it
    ├── StorageError         the disk is full or a folder can't be written
    ├── TrainingError        training can't go on (a loss that is not a number, say)
    └── Interrupted          the person stopped a run; what was saved is whole; exit status 130

Each message is one line that names the file or value, what is allowed and what to do next.
"""


def first_line(error: BaseException) -> str:
    r"""What another library's error says first, or its kind where it says nothing.

    Example:
        >>> first_line(ValueError("no model\nhere")), first_line(MemoryError())
        ('no model', 'MemoryError')
    """
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class VitreousError(Exception):
    """Base class of all errors raised on purpose; its text is meant for a person."""

    exit_status = 1


class UserError(VitreousError):
    """The person can mend it: a wrong option, file or folder."""

    exit_status = 2


class ConfigError(UserError):
    """A setting has a wrong name, type or value."""


class DataError(UserError):
    """The pictures as a whole can't be used (an empty class, an unknown class, a bad table)."""


class RunError(UserError):
    """A run folder exists already, is missing, is in use or is damaged."""


class WeightsError(UserError):
    """A file of weights is missing, damaged, ambiguous or doesn't fit the model."""


class UnreadablePicture(VitreousError):
    """One picture can't be decoded; the text says why, without the file's name.

    Args:
        text: why.
        passing: whether it is the system that couldn't read, which may well be able to later.
    """

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class StorageError(VitreousError):
    """Writing failed: disk full, no permission, read-only."""


class TrainingError(VitreousError):
    """Training can't go on; the text says what was seen."""


class Interrupted(VitreousError):
    """The person stopped a run; what was saved of it is whole."""

    exit_status = 130
