"""An optional role: keys of encrypted container images, wrapped and unwrapped under keys that are opened here."""
