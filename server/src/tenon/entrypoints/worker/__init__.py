"""The worker process: everything that happens without a request, each as a loop that survives its own failures and a second replica."""
