"""What a person sees while training: lines, screens and plots."""
