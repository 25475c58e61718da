"""The code behind a callable, as one digest."""

from clew.replay.code.callable import Code as Code
from clew.replay.code.callable import code_of as code_of
from clew.replay.code.callable import witnessed as witnessed
