"""The method: photographs -> patch features -> memory bank -> anomaly map -> score.  No web, no command line."""
