"""Advice in error messages: what a name from another library, or a misspelt one, is called here."""
