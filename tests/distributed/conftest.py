"""The scripts are started by the tests, each in processes of its own."""

collect_ignore_glob = ["scripts/*"]
