"""What is done to whole programs before they are written."""
