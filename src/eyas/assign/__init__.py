"""Which anchor point learns which object: pure functions of tensors."""
