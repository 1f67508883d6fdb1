"""Makes and changes indexes of healthy fundus photographs, and scores photographs against them.

cli             the command `resad-indexer`: a table of commands, each loaded when it is called
commands        build, score, calibrate, the commands on versions, and what they share (console)
settings        options of the command line -> settings, devices and sizes
tables          tables that the commands print
photos          listing (folders and CSVs), remote (addresses)
build           photographs -> a version of an index, with its state, features, forecast and publication
coreset         greedy k-center over projected features -> the memories
calibration     left-out scores of the reference photos, and calibration on other photographs
lifecycle       add, remove, merge, archive, and versions that are derived from others
scoring         a run over photographs: results, maps, overlays and evidence as files
score_journal, run_tables, score_tables, places    journal, tables and file names of such a run
prefetching     background threads: prefetching, round-robin, writing
"""
