"""Telling the person what happened, by mail, Telegram, Zalo or Slack (apprise); it never stops what it tells of.

An address holds a secret: it comes from $VNQ_NOTIFY or an argument, and stands in no file, log, error or repr.
"""

import logging
import os
import re
import threading
import time
from typing import Any

from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.errors import ConfigError, printable, tell

VARIABLE = "VNQ_NOTIFY"  # addresses, separated by spaces
SECONDS = 15.0  # for all of them together


def find_urls(given: Any = None) -> tuple[str, ...]:
    """The addresses of a text or a list, which must be good, else those of $VNQ_NOTIFY. Raises ConfigError."""
    if given is None:
        return tuple(os.environ.get(VARIABLE, "").split())
    urls = tuple(word for text in ([given] if isinstance(given, str) else given) for word in text.split())
    for place, url in enumerate(urls, 1):
        if not _service(url):
            raise ConfigError(f"notify: apprise does not know address {place} of {len(urls)}. Write it as mailto://, "
                              "tgram://, zalo:// or slack:// with what the documentation of apprise says of each.")
    return urls


def notify(urls: Any, title: str, text: str) -> list[str]:
    """Sends to all addresses at once, within seconds. Never raises: what failed is said, and returned as sentences."""
    urls, end = list(urls), time.monotonic() + SECONDS
    answers = dict.fromkeys(urls, f"no answer within {SECONDS:.0f} s")

    def send(url: str) -> None:
        try:
            is_sent = _service(url).notify(body=printable(text), title=title, body_format="text")
            answers[url] = "" if is_sent else "the address is unknown to apprise, it was refused, or nobody answered"
        except Exception as error:  # the text of another's may hold the address
            answers[url] = str(error) if isinstance(error, ConfigError) else type(error).__name__

    for thread in (threads := [threading.Thread(target=send, args=(url,), daemon=True) for url in urls]):
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    failed = [f"notification {place} of {len(urls)} was not sent: {answers[url]}."
              for place, url in enumerate(urls, 1) if answers[url]]
    for sentence in failed:
        tell(f"careful: {sentence}")
    return failed


def notify_session(session: Any, urls: Any = None) -> None:
    """As `on_finish` of `train` and `resume`: how the run ended, to `urls`, else to those of $VNQ_NOTIFY."""
    if urls := find_urls() if urls is None else urls:
        is_error = session.status == "running" or re.match(r"stopped by \w+: ", session.why)  # not: by the person
        n_failed = len(session.failed())
        title = f"vnq_colab: {'failed' if is_error else session.status}{f', {n_failed} failed' if n_failed else ''}"
        notify(urls, title, "\n".join(filter(None, [f"{session.run_id}: {session.why}", session.drive, session.note])))


def notify_evening(plan: Any, urls: Any, *, orders: bool = False) -> None:
    """Tells of the drift that an evening found, and, where that is wished, of what to do tomorrow."""
    from vnq_colab.delivery.orders import orders_text

    to_do = "\n".join(plan.outlook.no_orders) if plan.orders is None else orders_text(plan.orders)
    for name, text in (("drift", "\n".join(plan.drift.warnings) if plan.drift else ""), ("orders", to_do * orders)):
        if text:
            notify(urls, f"vnq_colab: {name} as of {plan.outlook.day:%Y-%m-%d}",
                   f"{text}\n{SYNTHETIC_NOTE * plan.outlook.bundle.manifest['synthetic']}".strip())


def _service(url: str) -> Any:
    """apprise's object for one address; it is false for one that apprise does not know."""
    try:
        import apprise
    except ImportError:
        raise ConfigError("notifications need apprise. Install it with: pip install apprise") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it writes addresses that it cannot read
    (service := apprise.Apprise()).add(url)
    return service
