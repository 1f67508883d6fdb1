"""Builds, scoring and the service over a Ray cluster (extra `cluster`): the same steps, the same numbers.

    worker_pool      connection to a cluster, workers started, called and replaced when they are lost
    scheduling       chunks of photographs, handed to workers as they become free
    worker           the process on a worker of a build
    features         features of all photographs, on the workers that made them
    shards           the greedy's shards on the workers
    build            a build over a cluster
    scorer           the process on a worker that scores
    scoring          scoring over a cluster
    commands         what `resad-indexer --cluster` calls
    serve            the service as a Ray Serve deployment
    routing          which index a request asks for, which replica is to load it
    ray_router       Ray Serve's request router
    replica_metrics  Prometheus metrics of several replicas as one text

May use every package; nothing imports it (commands name it as a string).  Ray is imported when a cluster is asked
for.
"""
