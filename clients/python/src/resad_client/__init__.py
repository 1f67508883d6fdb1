"""Client of a ReSAD service: fundus photographs -> anomaly scores, maps and findings.  Research use only.

Talks HTTP and needs neither torch nor FAISS.  `Client` blocks, `AsyncClient` is awaited.  The names are loaded at
their first use, so that the server can import a single module quickly.

client, async_client    the two clients
protocol                the service's calls and their answers
http                    HTTP, retries
records                 the records of an answer, from and to JSON; the server writes the same
errors                  every error, and how a run goes on after it
maps                    anomaly maps as arrays; a photograph's name above its overlay
photos                  photographs of folders and CSV files, media types
exports                 records as CSV, GeoJSON, COCO
csv_text                rows of CSV without formulas, tables, files by their names
journal, run_files      a resumable scoring run: its journal, tables and names of files; the server uses the same
batch                   many photographs over HTTP
progress                how far a run is
report                  printable reports, as HTML and PDF
cli, options, score_command, report_command, watch_command, tables    the command `resad-client`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from resad_client.async_client import AsyncClient
    from resad_client.client import Client
    from resad_client.errors import (
        Busy,
        ConnectionFailed,
        ConnectionLost,
        DeadlinePassed,
        NotAllowed,
        NotFound,
        NotReady,
        PhotoRefused,
        PhotoUnusable,
        Problem,
        ProtocolError,
        ResadClientError,
        ServerFault,
        ServerProblem,
        SettingError,
        TimedOut,
    )
    from resad_client.maps import AnomalyMap, map_bytes, read_map_npy, read_map_png16
    from resad_client.protocol import NewMark
    from resad_client.records import (
        INTENDED_USE,
        Disc,
        Evidence,
        Finding,
        IndexInfo,
        IndexReference,
        IndexWarning,
        Interval,
        Mark,
        MarkedPhoto,
        MarkList,
        NormalsReference,
        PhotoQuality,
        PhotoReference,
        QualityMeasures,
        Resemblance,
        Result,
        Timings,
        from_json,
        to_json,
    )

_MODULES: Final = {
    "async_client": ("AsyncClient",),
    "client": ("Client",),
    "errors": (
        "Busy", "ConnectionFailed", "ConnectionLost", "DeadlinePassed", "NotAllowed", "NotFound", "NotReady",
        "PhotoRefused", "PhotoUnusable", "Problem", "ProtocolError", "ResadClientError", "ServerFault",
        "ServerProblem", "SettingError", "TimedOut",
    ),
    "maps": ("AnomalyMap", "map_bytes", "read_map_npy", "read_map_png16"),
    "protocol": ("NewMark",),
    "records": (
        "INTENDED_USE", "Disc", "Evidence", "Finding", "IndexInfo", "IndexReference", "IndexWarning", "Interval",
        "Mark", "MarkedPhoto", "MarkList", "NormalsReference", "PhotoQuality", "PhotoReference", "QualityMeasures",
        "Resemblance", "Result", "Timings", "from_json", "to_json",
    ),
}  # fmt: skip
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "INTENDED_USE",
    "AnomalyMap",
    "AsyncClient",
    "Busy",
    "Client",
    "ConnectionFailed",
    "ConnectionLost",
    "DeadlinePassed",
    "Disc",
    "Evidence",
    "Finding",
    "IndexInfo",
    "IndexReference",
    "IndexWarning",
    "Interval",
    "Mark",
    "MarkList",
    "MarkedPhoto",
    "NewMark",
    "NormalsReference",
    "NotAllowed",
    "NotFound",
    "NotReady",
    "PhotoQuality",
    "PhotoReference",
    "PhotoRefused",
    "PhotoUnusable",
    "Problem",
    "ProtocolError",
    "QualityMeasures",
    "Resemblance",
    "ResadClientError",
    "Result",
    "ServerFault",
    "ServerProblem",
    "SettingError",
    "TimedOut",
    "Timings",
    "from_json",
    "map_bytes",
    "read_map_npy",
    "read_map_png16",
    "to_json",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
