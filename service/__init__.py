"""Answers HTTP: anomaly scores, maps and findings from the indexes under one folder.

The way of a request: `middleware` -> `routes` -> `admission`, `uploads` -> `answering` -> `worker` -> `maps`.

cli             `resad-service`: options, refusals
settings        every setting, from variables and options
server          the process: log format, uvicorn with limits
app             the FastAPI application and its answers to errors
state           everything that lives as long as the service
routes          the HTTP calls and the page
schemas         queries and answers beside `Result`, and examples
openapi         writes openapi.json, the contract as it is checked in
problems        every error a caller can get (RFC 9457)
security        who may call: keys and scopes
keys            the keys file, and `resad-keys`
middleware      request ids, log lines, security headers
tracing         times and hashes of a request, OpenTelemetry spans
metrics         Prometheus metrics, drift
hosts           which hosts the service answers for (421)
admission       bounded queue, bytes in memory, 429 with Retry-After
fairness        shares of accounts, and turns
uploads         bodies -> bytes of photographs
answering       one photograph or several -> their answer
maps            map files, overlays, content negotiation
dicom           results as DICOM objects
worker          the one thread that owns torch and FAISS
registry        the served indexes by name
index_cache     LRU cache of loaded indexes
index_reloader  loads versions, follows CURRENT
web/            the page
"""
