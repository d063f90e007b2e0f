"""Stand-ins for services of Google Cloud, over real sockets, as strict as those are."""
