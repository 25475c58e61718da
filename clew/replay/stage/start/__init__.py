"""What a replayed program's interpreter loads before the program: a folder that stands on its PYTHONPATH."""
