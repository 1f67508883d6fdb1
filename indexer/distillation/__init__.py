"""Training of the small trunk that is shipped inside the package, from any larger one.

pool         the photographs: prepared ones, and drawn ones beside them
damage       spots that no healthy retina shows
views        crops of them, turned, zoomed, recolored, damaged
targets      the teacher's stages in fewer channels, and how far the student is from them
student      the trunk with batch normalization, and folded
training     the loop, one step after the other
checkpoint   a run written down, to be taken up again
agreement    teacher and student compared on photographs that were held out
curve        the loss as CSV and as a picture
"""
