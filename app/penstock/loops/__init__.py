"""What happens by itself: each loop repeats one bounded step, under one supervision."""
