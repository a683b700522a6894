"""What ships, held by tests: the image, compose.yaml, the manifests, the workflows."""
