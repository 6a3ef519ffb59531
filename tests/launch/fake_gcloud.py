"""A ``gcloud`` that plays a scenario: what a small cloud answers, call by call.

The folder named in FAKE_CLOUD holds scenario.json and gets calls.txt, one call a line. The scenario:

    lives     one entry for every `create`, in order; a further create is an error. Each has, all optional:
      create    what `create` fails with
      states    answers of `describe`, one a call, the last for ever: a state of the API, "ERROR: ..." for a call that
                fails, "CTRL-C" for a Ctrl-C at the launcher. Default: ACTIVE
      failure   the reason of a state FAILED
      nodes     states of the nodes, one a call of `list`, the last for ever. Default: READY
      worker    answers of `worker.sh state` on worker 0: "running <log line>", "idle", "lost", "silent", "CTRL-C", or
                "exited", after which all workers answer `codes`. Default: exited
      codes     exit codes of the workers. Default: 0 each
      setup     how many workers answer `setup`. Default: all
    workers   machines of the slice. Default: 2
    owner     label of what is there. Default: ada
    deleting  how many `describe` calls after a deletion still find it. Default: 0
    stuck     how many calls of `delete` fail. Default: 0
    there     it exists before the first create, as the first life
    impatient Ctrl-C is pressed again during `delete`; only for a launcher that leads a process group of its own
"""

import json
import os
import signal
import sys

NOT_FOUND = "ERROR: (gcloud.compute.tpus) NOT_FOUND: no such resource"


class Failed(Exception):
    """The call fails; the text goes to stderr."""


class CtrlC(Exception):
    """The user presses Ctrl-C during this call."""


class Played:
    """The scenario in a folder and how far it has been played."""

    def __init__(self, folder):
        self.path = f"{folder}/memory.json"
        self.scenario = read(f"{folder}/scenario.json")
        there = "there" in self.scenario
        start = {"life": 0 if there else -1, "exists": there, "deleting": 0, "at": {}}
        self.memory = read(self.path) if os.path.exists(self.path) else start
        self.workers = self.scenario.get("workers", 2)

    def call(self, argv):
        """The output of one call; raises ``Failed``."""
        collection, verb = argv[2:4]
        if verb == "ssh":
            return self.ssh(argv[-1], "--worker=all" in argv)
        if verb == "list":
            return self.nodes() if collection == "tpu-vm" else self.listed()
        if verb in ("create", "describe", "delete"):
            return getattr(self, verb)()
        return ""

    def life(self):
        return self.scenario["lives"][self.memory["life"]]

    def step(self, key, default):
        """The next answer of this life under that key."""
        answers = self.life().get(key, [default])
        place = f"{self.memory['life']}.{key}"
        at = self.memory["at"].get(place, 0)
        self.memory["at"][place] = at + 1
        answer = answers[min(at, len(answers) - 1)]
        if answer == "CTRL-C":
            raise CtrlC
        if answer.startswith("ERROR"):
            raise Failed(answer)
        return answer

    def create(self):
        if self.memory["exists"] or self.memory["deleting"]:
            raise Failed("ERROR: ALREADY_EXISTS: there is one of this name")
        self.memory["life"] += 1
        if self.memory["life"] == len(self.scenario["lives"]):
            raise Failed("ERROR: the scenario has no further life")
        if "create" in self.life():
            raise Failed(self.life()["create"])
        self.memory["exists"] = True
        return ""

    def describe(self):
        state = {"state": "DELETING"}
        if self.memory["exists"]:
            state = {"state": self.step("states", "ACTIVE")}
        elif self.memory["deleting"]:
            self.memory["deleting"] -= 1
        else:
            raise Failed(NOT_FOUND)
        if state["state"] == "FAILED":
            state["failedData"] = {"error": {"message": self.life()["failure"]}}
        return json.dumps(self.resource(state))

    def resource(self, state):
        labels = {"sparsejax-owner": self.scenario.get("owner", "ada")}
        return {"name": "p/run", "state": state, "tpu": {"nodeSpec": [{"nodeId": "run", "node": {"labels": labels}}]}}

    def listed(self):
        return json.dumps([self.resource({"state": "ACTIVE"})] if self.memory["exists"] else [])

    def nodes(self):
        state = self.step("nodes", "READY") if self.memory["exists"] else "none"
        node = {"name": "p/nodes/run", "state": state, "networkEndpoints": [{}] * self.workers, "queuedResource": "run"}
        return json.dumps([] if state == "none" else [node])

    def delete(self):
        if not self.memory["exists"]:
            raise Failed(NOT_FOUND)
        self.memory["stuck"] = self.memory.get("stuck", self.scenario.get("stuck", 0)) - 1
        if self.memory["stuck"] >= 0:
            raise Failed("ERROR: (gcloud) INTERNAL: try again")
        self.memory["exists"] = False
        self.memory["deleting"] = self.scenario.get("deleting", 0)
        return ""

    def ssh(self, command, everyone):
        if "worker.sh setup" in command:
            return answers("installed", self.life().get("setup", self.workers))
        if "worker.sh start" in command:
            return answers("started", self.workers)
        if "worker.sh log" in command:
            return "==> host0 <==\nthe last words of the run\n"
        codes = self.life().get("codes", [0] * self.workers)
        if everyone:
            return "".join(f"sparsejax-worker host{i} state=exited code={code}\n" for i, code in enumerate(codes))
        word, _, line = self.step("worker", "exited").partition(" ")
        if word == "silent":
            raise Failed("ERROR: ssh exited with return code [255]")
        return f"sparsejax-worker host0 state={word}{f' code={codes[0]}' if word == 'exited' else ''}\n{line}\n"


def answers(state, number):
    return "".join(f"sparsejax-worker host{host} state={state}\n" for host in range(number))


def read(path):
    with open(path) as file:
        return json.load(file)


def play(folder, argv):
    """(exit code, stdout, stderr) of one call; raises ``CtrlC``."""
    with open(f"{folder}/calls.txt", "a") as file:
        print(" ".join(argv), file=file)
    played = Played(folder)
    try:
        return 0, played.call(argv), ""
    except Failed as error:
        return 1, "", str(error)
    finally:
        with open(played.path, "w") as file:
            json.dump(played.memory, file)


def main():
    # Like the real one, it listens to Ctrl-C also where its parent does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = os.environ["FAKE_CLOUD"]
    if sys.argv[4] == "delete" and "impatient" in read(f"{folder}/scenario.json"):
        # As a terminal does: to all of the group.
        os.killpg(os.getpgid(os.getppid()), signal.SIGINT)
    try:
        code, out, err = play(folder, sys.argv[1:])
    except CtrlC:
        os.kill(os.getppid(), signal.SIGINT)
        signal.pause()
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code
