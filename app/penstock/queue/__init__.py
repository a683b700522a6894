"""What runs next: Redis. The only room that imports redis. A hint: correctness never reads it."""
