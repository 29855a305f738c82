"""Traffic with a will of its own, for trying the loop from serving to the next bundle.

    python bench/train/traffic.py --router 127.0.0.1:7301 --requests cluster/bootstrap/demo/catalogue/requests.jsonl.zst --count 2000

Asks a router for ads as recorded users did, and reports what simulated ones do: everybody sees the first slot and fewer
the later ones; an advertiser whose number is divisible by three is clicked on eight times as often as another, which no
bundle trained on the recorded shoppers can know. A tenth of the events is sent twice, all of them out of order.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
from collections import Counter
from pathlib import Path

import zstandard

SEEN = (1.0, 0.75, 0.56, 0.42)
LIKED, OTHER, CONVERTS = 0.4, 0.05, 0.3
BATCH = 256


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", required=True, help="HOST:PORT of a router's HTTP endpoint")
    parser.add_argument("--requests", type=Path, required=True, help="requests.jsonl.zst of a catalogue")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=20_170_101)
    return parser.parse_args()


def post(router: http.client.HTTPConnection, path: str, body: dict) -> dict:
    """One exchange; an answer that is no answer ends the run."""
    router.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = router.getresponse()
    text = response.read()
    if response.status != 200:
        raise SystemExit(f"{path}: {response.status} {text.decode()}")
    return json.loads(text)


def happens(slate: list[dict], dice: random.Random) -> list[dict]:
    """What a user does with a page."""
    events = []
    for ad in slate:
        if not ad.get("token"):
            continue
        events.append({"kind": "win", "token": ad["token"]})
        if dice.random() >= SEEN[min(ad["slot"], len(SEEN) - 1)]:
            continue
        events.append({"kind": "impression", "token": ad["token"]})
        if dice.random() < (LIKED if ad["advertiser"] % 3 == 0 else OTHER):
            events.append({"kind": "click", "token": ad["token"]})
            if dice.random() < CONVERTS:
                events.append({"kind": "conversion", "token": ad["token"]})
    return events


def main() -> None:
    """Ask, behave, report."""
    args = arguments()
    with args.requests.open("rb") as packed:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8").read().splitlines()
    dice, router = random.Random(args.seed), http.client.HTTPConnection(args.router, timeout=30)
    waiting, answers, done = [], Counter(), Counter()

    def report(most: int) -> None:
        dice.shuffle(waiting)
        while len(waiting) > most:
            batch = [waiting.pop() for _ in range(min(BATCH, len(waiting)))]
            answers.update(post(router, "/v1/events", {"events": batch})["answers"])

    for number in range(args.count):
        request = json.loads(lines[number % len(lines)])
        request.pop("ts", None)
        slate = post(router, "/v1/ads", request | {"request_id": f"traffic-{args.seed}-{number}", "deadline_ms": 500, "min_coverage": 0.0001})["slate"]
        events = happens(slate, dice)
        done.update(event["kind"] for event in events)
        waiting += events + [event for event in events if dice.random() < 0.1]
        report(4 * BATCH)
    report(0)
    rate = done["click"] / max(done["impression"], 1)
    print(json.dumps({"requests": args.count, "happened": dict(sorted(done.items())), "click_rate": round(rate, 4), "answers": dict(sorted(answers.items()))}))


if __name__ == "__main__":
    main()
