"""What all tests share: real servers, replicas as processes, a client, waiting."""
