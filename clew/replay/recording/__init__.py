"""What a run asked of the world and was answered: written while it runs, read back to replay it."""
