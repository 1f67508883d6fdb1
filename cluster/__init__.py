"""A build, or the scoring of a folder, over a Ray cluster (extra `cluster`): the same steps, the same numbers.

    connection.py  an address -> a cluster to work on; the only file that imports Ray
    crew.py        its workers: begun, asked, lost and replaced
    dealing.py     pieces of work, to whoever is free
    pieces.py      the listed photographs in pieces, dealt to the workers
    worker.py      what runs on a worker, on a piece: features (feature_worker.py), points and the greedy
                   (point_worker.py), what is left out
    messages.py    what driver and workers tell each other
    features.py    photographs -> features, which stay where they were made
    runs.py        whose points are whose: shards of whole blocks in the one order of all patches
    shards.py      the greedy's shards, on the workers
    foresight.py   what it will take
    calibration.py each photograph left out, where its features are
    orders.py      who works on a build, and what all of them are told
    build.py       the offline sentence
    scoring.py     photographs -> a table of scores (score_rows.py), by workers with an index (scorer.py)
    parquet.py     that table for programs

Ray is loaded only when a cluster was asked for.
"""
