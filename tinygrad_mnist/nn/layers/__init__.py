"""The layers: modules around ``nn.functional``, with PyTorch's names and initial values.

Those that hold numbers take ``dtype=`` and ``backend=``, as ``zeros`` does. ``inplace=`` is taken
for the sake of scripts written for PyTorch: a new tensor is made either way.
"""
