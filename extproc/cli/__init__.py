"""The command `dualpool`: one module per subcommand."""
