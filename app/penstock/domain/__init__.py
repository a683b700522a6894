"""What is true: pure rules about jobs, without clock, random or await."""
