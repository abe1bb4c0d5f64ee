"""What several tests need: example systems, images, faults, the processor at hand."""
