"""Small applications, one idea a file. docs/examples.md lists them; `mesh run` serves one."""
