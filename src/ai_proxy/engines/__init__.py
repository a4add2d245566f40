"""The software that answers: one file per engine, with its descriptor."""
