"""What the offline command and the client both need, and neither may take from the other, is kept alike."""

import re
from pathlib import Path

import pytest
import resad_client
import resad_client.media

import indexer
import resad
from resad import photo

SHARED = ("places", "run_tables", "score_journal", "score_tables")
CLIENT = Path(resad_client.__file__).parent


@pytest.mark.parametrize(
    "path",
    [
        Path(resad.__file__).parent / "exports.py",
        *(Path(indexer.__file__).parent / f"{name}.py" for name in SHARED),
    ],
    ids=lambda path: path.stem,
)
def test_they_differ_in_where_their_records_come_from_alone(path: Path) -> None:
    ours, theirs = (_less_origin(file.read_text()) for file in (path, CLIENT / path.name))
    assert ours == theirs


def test_client_and_offline_command_know_the_same_other_formats() -> None:
    """A file that is none of the photographs that are taken is called by its name wherever it is refused."""
    assert resad_client.media._OTHERS == photo._OTHER_FORMATS


def _less_origin(text: str) -> str:
    text = re.sub(r"^from (resad|indexer|resad_client)[.\w]* import", "from HERE import", text, flags=re.MULTILINE)
    return re.sub(r"^The (service's client|offline command) has", "The OTHER has", text, flags=re.MULTILINE)
