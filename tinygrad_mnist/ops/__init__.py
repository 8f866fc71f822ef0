"""Every op with a kernel, once: its kernel and its gradients.

The modules read like a table of derivatives. A rule is a function of the result's gradient and of
what it names: an input, ``out``, a static argument (see ``autograd.Op``). What people call on a
tensor is defined as its method: ``Products`` inherits the others, and ``Tensor`` it.
"""
