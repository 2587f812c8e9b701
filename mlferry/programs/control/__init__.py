"""Constants, branches, loops, lists and states."""
