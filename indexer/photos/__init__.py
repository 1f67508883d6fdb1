"""Lists of photographs.

listing            folders and CSVs -> listed photographs
remote             photographs at an address (s3://, https://)
naming             photographs that an option names, by id, hash or file
"""
