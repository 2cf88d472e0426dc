"""Training: the trace of a model, its programs, the fit loop, losses, metrics, callbacks, history and progress."""
