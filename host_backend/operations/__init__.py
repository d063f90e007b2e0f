"""What a message asks to have signed, operation by operation, and what each of them can do."""
