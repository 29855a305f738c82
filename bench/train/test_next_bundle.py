"""What next_bundle.sh calls, in which order, and what it refuses before it has done anything.

Programs stand in for gavel and the trainer, and write down how they were called: the order and the version are what is
tested here, the programs have tests of their own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent
GAVEL = """#!/bin/sh
echo "gavel $*" >>"$CALLS"
case "$*" in
    *"model publish"*) echo "version 17 is accepted" >&2; echo "$PUBLISHED" ;;
    *"model check"*) exit "${CHECK:-0}" ;;
    *"model status"*) exit "${STATUS:-0}" ;;
esac
"""
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit "${MODULES:-0}"
shift
echo "train $*" >>"$CALLS"
"""


class NextBundle(unittest.TestCase):
    """The script on a folder with one log of each kind."""

    def setUp(self) -> None:
        """Stand-ins, logs, a schema."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, text in [("gavel", GAVEL), ("python", PYTHON)]:
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        for log in ["scored-a", "scored-b", "events"]:
            (self.folder / log).mkdir()
            (self.folder / log / "log-1.jsonl").write_text("{}\n")
        (self.folder / "schema.toml").write_text("")

    def options(self, **changed: str | None) -> list[str]:
        """Everything that the script needs, some of it changed or left out."""
        at = self.folder
        given = {"scored": f"{at}/scored-a,{at}/scored-b", "events": f"{at}/events", "schema": f"{at}/schema.toml", "out": f"{at}/out"}
        given |= {name.replace("_", "-"): value for name, value in changed.items()}
        return [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]

    def run_script(self, options: list[str], **environment: str) -> subprocess.CompletedProcess:
        """One run; its calls are in self.calls()."""
        own = {"GAVEL": f"{self.folder}/gavel", "PYTHON": f"{self.folder}/python", "CALLS": f"{self.folder}/calls", "PUBLISHED": "version 17 is ready; serve it: gavel ctl model activate 17"}
        return subprocess.run([HERE / "next_bundle.sh", *options], env=os.environ | own | environment, capture_output=True, text=True, check=False)

    def calls(self) -> list[str]:
        """What was called, without the folder's name."""
        calls = self.folder / "calls"
        text = calls.read_text().replace(f"{self.folder}/", "") if calls.exists() else ""
        return text.splitlines()

    def test_the_version_that_was_published_is_activated(self) -> None:
        """Join, training, check, publication, activation, with the options of each."""
        more = self.options(control="c:1", join_options="--open keep", train_options="--tower-epochs 2", publish_options="--no-skew")
        done = self.run_script([*more, "--activate"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            self.calls(),
            [
                "gavel ctl --control c:1 model status",
                "gavel log join --scored scored-a,scored-b --events events --out out/table --json out/join.json --open keep",
                "train --schema schema.toml --data out/table --out out/bundle --tower-epochs 2",
                "gavel model check out/bundle",
                "gavel ctl --control c:1 model publish out/bundle --no-skew",
                "gavel ctl --control c:1 model activate 17",
            ],
        )

    def test_no_more_is_done_than_was_asked_for(self) -> None:
        """A bundle alone, a published one, the first of a cluster, and one that the publication does not name."""
        self.assertEqual(self.run_script(self.options()).returncode, 0)
        self.assertEqual(self.calls()[-1], "gavel model check out/bundle")
        wholes = [("--publish", "version 17 is ready; ...", 0), ("--activate", "version 1 serves", 0), ("--activate", "", 2)]
        for number, (then, published, code) in enumerate(wholes):
            options = self.options(control="c:1", out=f"{self.folder}/{number}")
            done = self.run_script([*options, then], PUBLISHED=published)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(self.calls()[-1], f"gavel ctl --control c:1 model publish {number}/bundle")

    def test_a_bundle_that_is_refused_is_not_published(self) -> None:
        """`gavel model check` has the last word."""
        done = self.run_script([*self.options(control="c:1"), "--activate"], CHECK="3")
        self.assertEqual(done.returncode, 3)
        self.assertEqual(self.calls()[-1], "gavel model check out/bundle")

    def test_mistakes_are_named_before_anything_is_done(self) -> None:
        """What is missing, empty, in the way or not there."""
        (self.folder / "empty").mkdir()
        mistakes = [
            (self.options(scored=None), {}, "--scored DIR[,DIR] is missing"),
            (self.options(events=f"{self.folder}/nowhere"), {}, "there is no log at"),
            (self.options(events=f"{self.folder}/empty"), {}, "is empty: nothing was logged"),
            (self.options(schema=f"{self.folder}/no.toml"), {}, "there is no schema at"),
            (self.options(out=f"{self.folder}/events"), {}, "name a new folder"),
            (self.options(), {"GAVEL": "no-such-program"}, "no-such-program is no program"),
            (self.options(), {"PYTHON": "no-such-python"}, "no-such-python is no program"),
            (self.options(), {"MODULES": "1"}, "lacks what the trainer needs"),
            ([*self.options(), "--publish"], {}, "--publish needs --control"),
            ([*self.options(), "--deploy"], {}, "--deploy is no option"),
            ([*self.options(), "--out"], {}, "--out needs a value"),
        ]
        for options, environment, reason in mistakes:
            done = self.run_script(options, **environment)
            self.assertEqual(done.returncode, 2, reason)
            self.assertIn(reason, done.stderr)
        self.assertEqual(self.calls(), [])
        done = self.run_script([*self.options(control="c:1"), "--publish"], STATUS="1")
        self.assertIn("does not answer at c:1", done.stderr)
        self.assertEqual(self.calls(), ["gavel ctl --control c:1 model status"])


if __name__ == "__main__":
    unittest.main()
