"""Ambient values: while an activation is on, what a program draws at random is derived from a seed and its place."""

from clew.replay.ambient.activation import Ambient

__all__ = ["Ambient"]
