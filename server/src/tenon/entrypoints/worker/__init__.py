"""The worker process: everything that happens without a request.

Owns: the list of background tasks and the loop that runs one. Promises: a loop survives its own failures and a second replica.
Needs: a login for each task.
"""
