"""DICOM: photographs in, results out.  Needs the extra `dicom`; nothing here imports torch.

files: bytes -> data set, with bounded work; one frame of several as a file of its own.
header: what the header says of a photograph; which objects are no photograph of the eye.
pixels: a data set's pixels -> RGB.
results: a result as objects of the photograph's study.
"""
