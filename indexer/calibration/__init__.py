"""Scores of normal photographs that calibrate an index.

leave_out    each reference photo scored against the memories of the others
calibrate    calibration on other normal photographs
"""
