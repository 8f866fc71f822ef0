"""The parts of ``verify_gpu.py``: each verifies one thing on a card."""
