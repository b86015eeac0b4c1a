"""The processes: api, sync, worker and the command line. They only wire together what the packages below do."""
