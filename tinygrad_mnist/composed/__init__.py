"""What a tensor's ops are composed to: methods without a kernel and a gradient of their own.

Enters: tensors and what the method takes besides. Leaves: tensors. Who calls it: ``Tensor``, which
inherits ``Algebra`` and through it the others. Calls the methods of ``ops`` and nothing below them.
"""
