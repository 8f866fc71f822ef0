"""What a training looks like: pictures of its course, and a page that shows all of it."""

from __future__ import annotations

from tinygrad_mnist.report.figures import Curve, plot_curves, plot_digits, plot_history
from tinygrad_mnist.report.page import Report, write_report

__all__ = ["Curve", "Report", "plot_curves", "plot_digits", "plot_history", "write_report"]
