"""What was signed last, so that nothing is signed twice: the rule, the port (`base`) and its stores."""
