"""`python -m ai_proxy` is the same program as `ai-proxy`."""

from ai_proxy.cli.main import main

if __name__ == "__main__":
    main()
