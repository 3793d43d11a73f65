"""Guides: q(z|x) as networks that are learned beside the model, drawn by differentiable maps of normal noise."""
