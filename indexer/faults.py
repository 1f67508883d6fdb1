"""What a run over many photographs says of one that has no score, whatever the reason."""

from resad.errors import PhotoError, ResadError


def fault_of(error: Exception) -> str:
    """Why a photograph has no score, in a line; of an error that nobody raised on purpose its kind alone.

    What libraries say may hold names of files and of keys.  An error that is the operator's to mend is raised: it
    would come again with every photograph.
    """
    if isinstance(error, PhotoError):
        return in_a_line(str(error))
    if isinstance(error, ResadError):
        raise error
    return f"it could not be scored ({type(error).__name__})"


def in_a_line(text: str) -> str:
    """`text` with spaces for line breaks, as CSVs and journals know them."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
