"""How clients are served: where they come in, who may stay, whose turn it is, what becomes of their calls."""
