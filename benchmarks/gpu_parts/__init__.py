"""What `benchmarks/gpu.py` is made of: training of convolutional models at the size of CIFAR-10."""
