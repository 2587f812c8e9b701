"""Constants that are stored in fewer bits, and made whole before the program runs."""
