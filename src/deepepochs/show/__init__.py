"""What a run shows to a person: lines of text, screens and plots."""
