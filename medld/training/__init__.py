"""Training: what to draw, how to make it, what it costs, and a flat loop around it."""

from medld.training.loop import run_training

__all__ = ["run_training"]
