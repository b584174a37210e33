"""``python -m ensemble_svc`` is the command line."""

from ensemble_svc.cli.main import run

if __name__ == "__main__":
    run()
