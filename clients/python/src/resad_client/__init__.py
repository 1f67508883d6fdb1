"""Client of a ReSAD service: fundus photographs -> anomaly scores, maps and findings.  Research use only.

Talks HTTP and needs neither torch nor FAISS.  `Client` blocks, `AsyncClient` is awaited.
"""

from resad_client.async_client import AsyncClient
from resad_client.client import Client
from resad_client.errors import (
    Busy,
    ConnectionFailed,
    DeadlinePassed,
    NotAllowed,
    NotFound,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    ServerFault,
    ServerProblem,
    SettingError,
    TimedOut,
)
from resad_client.maps import AnomalyMap, map_bytes, read_map_npy, read_map_png16
from resad_client.models import (
    INTENDED_USE,
    Disc,
    Evidence,
    Finding,
    IndexInfo,
    IndexReference,
    Interval,
    NormalsReference,
    PhotoQuality,
    PhotoReference,
    Problem,
    QualityMeasures,
    Result,
    Timings,
)
from resad_client.reading import from_json, to_json

__all__ = [
    "INTENDED_USE",
    "AnomalyMap",
    "AsyncClient",
    "Busy",
    "Client",
    "ConnectionFailed",
    "DeadlinePassed",
    "Disc",
    "Evidence",
    "Finding",
    "IndexInfo",
    "IndexReference",
    "Interval",
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
