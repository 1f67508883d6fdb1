"""Training of the bundled trunk on healthy photographs: `resad-indexer train`.

crops       pieces of healthy photographs, painted with lesions, turned, recolored and blurred
networks    the trunk with batch normalization for training, and folded for the file
teacher     the texture features that a ResNet gives, in fewer channels
training    the loop, one step after the other, and its checkpoint
train       from a folder of photographs to a file of weights, with its loss curve and its results
painted     painted lesions found on photographs that were held out, by kind, size and contrast
"""
