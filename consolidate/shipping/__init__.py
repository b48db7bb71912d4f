"""`ship`: the images of a stack's servers brought to another engine, without a registry, so that the very same run there."""
