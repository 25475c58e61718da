"""LangChain: its callbacks as spans (observers), its calls as boundaries."""
