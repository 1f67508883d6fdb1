"""Scores of normal photographs that calibrate an index.

normals      which normals calibrate: those that the trunk was not trained on
lines        what a calibration rests on, in sentences
leave_out    each reference photo scored against the memories of the others
calibrate    calibration on other normal photographs
"""
