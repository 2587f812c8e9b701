"""What a user holds: a model that loads, predicts, shows itself and saves."""
