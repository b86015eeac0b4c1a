"""The test runner: steps side by side, results counted, one place that knows what `make check` and `make test` run.

Owns: the list of steps (`steps`), running them within the machine's cores (`scheduler`), counting results (`results`), running the
gateway's test binaries (`cargo_tests`), finding what `make test T=…` names (`selection`), finding tests that wait for time (`waiting`).

Promises: every step runs even after another one failed. An interrupted or killed run leaves no process and no folder behind (`cleaner`).
The last line counts the tests and says what was left out and how to run it.

Needs: Python's standard library only, so that it runs before anything is installed.
"""
