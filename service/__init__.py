"""Online: upload -> prepare -> backbone -> ReSC -> search -> map -> response.  Command line: `resad-service`."""
