"""What is checked of real kernels: conformance with the model, the rules confirmed, costs, and shapes to dump."""
