"""What ruins training or flatters evaluation, found before either has cost anything."""
