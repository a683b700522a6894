"""What callers ask for: one transaction each; Redis hears of it only after the commit."""
