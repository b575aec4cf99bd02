"""Pages in a headless browser, where there is one."""

import re
import shutil
import subprocess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
]  # fmt: skip


def open_page(path, directory):
    """The page's content as the browser has it, the messages on its console, and the addresses that it asked for."""
    log = directory / "network.json"
    arguments = [
        *FLAGS,
        f"--user-data-dir={directory / 'profile'}",
        f"--log-net-log={log}",
        "--dump-dom",
        path.as_uri(),
    ]
    process = subprocess.run([CHROMIUM, *arguments], capture_output=True, text=True, timeout=120, check=True)
    requests = re.findall(r'"url":"([^"]+)"', log.read_text()) if log.exists() else []
    # The browser itself asks for its maker's hosts.
    fetched = [url for url in requests if url.startswith("http") and "google" not in url]
    return process.stdout, [line for line in process.stderr.splitlines() if "CONSOLE" in line], fetched
