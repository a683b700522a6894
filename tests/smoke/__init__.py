"""What a stack that runs somewhere must be able to do (`python -m tests.smoke`)."""
