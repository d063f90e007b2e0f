"""Where sealed keys are kept: the port (`base`) and its stores."""
