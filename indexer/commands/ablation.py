def ablation_command() -> None:
    """x"""
