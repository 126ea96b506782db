"""Networks: a spec becomes a `torch.nn.Module`; decoding, fusing and weights beside it. Import the submodules."""
