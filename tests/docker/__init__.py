"""What is in docker/ and docker-compose.yml.

Tests marked `docker` need an engine, take minutes, and run by `make docker-test` alone.
"""
