"""The engines that run a network, one module each, all behind the `Session` protocol of `base`."""
