"""Who uses the endpoint all along: `python work.py train|grid PORT EXPECTED` works in rounds until its standard
input ends, and prints a line of JSON for each: what it was told, what was wrong, and what went wrong.

EXPECTED: a file with what a quiet cloud answers; where it is not there it is made, of two rounds that agree.
An error is the driver's to judge (was there an outage?); an answer that differs is wrong whenever it comes."""

import contextlib
import http.client
import json
import os
import pathlib
import select
import sys
import time
import types
import urllib.parse

TIMEOUT = 60
FRAME = {
    "rows": 20000, "cols": 6, "seed": 1, "seed_for_column_types": 1, "randomize": "true",
    "integer_fraction": 0, "categorical_fraction": 0, "binary_fraction": 0, "time_fraction": 0,
    "string_fraction": 0, "missing_fraction": 0.1, "has_response": "true", "response_factors": 1,
}
GRID = {"ntrees": [3, 5], "max_depth": [2, 3], "learn_rate": [0.05, 0.1]}


class Outage(Exception):
    """No answer, or one that says that there is none."""

    def __init__(self, what, status=None):
        super().__init__(what)
        self.status = status


def same(a, b):
    """Floating-point sums depend on the order in which nodes and threads come to an end."""
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-6)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Round:
    """What is told of one round."""

    def __init__(self, expected):
        self.expected, self.told = expected, {}
        self.wrong, self.error, self.answers, self.clouds = [], None, 0, []
        self.begun = time.monotonic()

    def check(self, what, value):
        """One answer, held against a quiet cloud's."""
        self.answers += 1
        self.told[what] = value
        if what in self.expected and not same(value, self.expected[what]):
            self.wrong.append(f"{what} is {value}, not {self.expected[what]}")

    def demand(self, holds, sentence):
        self.answers += 1
        if not holds:
            self.wrong.append(sentence)

    def json(self):
        return json.dumps({
            "begun": self.begun, "ended": time.monotonic(), "answers": self.answers, "wrong": self.wrong,
            "error": self.error, "clouds": self.clouds})


# --- one that trains: plain REST, so that it notices at once what the h2o package waits for ----------


class Trainer:
    def __init__(self, port):
        self.port = port
        self.cloud = None  # where our frame is: the name of a generation
        self.frame = self.model = None
        self.rounds = 0

    def call(self, method, path, **form):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        body = urllib.parse.urlencode(form) if method == "POST" else None
        headers = {"X-Chaos": "trainer", "Content-Type": "application/x-www-form-urlencoded"}
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body=body, headers=headers)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as e:
                raise Outage(f"{method} {path}: {type(e).__name__} {e}") from None
        if answer.status != 200:
            raise Outage(f"{method} {path}: {answer.status} {said[:300]!r}", answer.status)
        return json.loads(said)

    def done(self, job):
        """Waits for a job's end."""
        while job["status"] in ("CREATED", "RUNNING"):
            time.sleep(0.1)
            job = self.call("GET", "/3/Jobs/" + urllib.parse.quote(job["key"]["name"]))["jobs"][0]
        if job["status"] != "DONE":
            raise Outage(f"the job {job['description']} is {job['status']}: {job['exception']}")

    def name(self):
        return self.call("GET", "/3/Cloud?skip_ticks=true")["cloud_name"]

    def rapids(self, expression):
        return self.call("POST", "/99/Rapids", ast=expression, session_id="chaos_trainer")["scalar"]

    def there(self, path):
        try:
            self.call("GET", path)
        except Outage as e:
            if e.status == 404:
                return False
            raise
        return True

    def look_at_frame(self, to):
        frame = self.call("GET", f"/3/Frames/{self.frame}?row_count=5")["frames"][0]
        to.check("rows", frame["rows"])
        to.check("columns", [c["label"] for c in frame["columns"]])
        to.check("missing", [c["missing_count"] for c in frame["columns"]])
        to.check("first cells", [c["data"] for c in frame["columns"]][0])
        for i in (0, 3, 6):
            to.check(f"sum of column {i}", self.rapids(f"(sumNA (cols {self.frame} [{i}]))"))

    def what_was(self, to):
        """What an earlier round left is there as it was, or is gone as a whole."""
        name = self.name()
        to.clouds.append(name)
        if self.cloud == name:
            self.look_at_frame(to)
        elif self.cloud:
            left = [path for path in (f"/3/Frames/{self.frame}", f"/3/Models/{self.model}") if self.there(path)]
            if self.name() == name:
                to.demand(not left, f"{left} of {self.cloud} is in {name}")
        if self.cloud != name or self.rounds % 4 == 0:
            with contextlib.suppress(Outage):
                self.call("DELETE", f"/3/Frames/{self.frame}")
            # A name that is new: a job whose end was not waited for may still hold the old one.
            self.cloud, self.frame = None, f"training_{os.getpid()}_{self.rounds}"
            self.done(self.call("POST", "/3/CreateFrame", dest=self.frame, **FRAME))
            self.look_at_frame(to)
            # Made in a generation that is over by now it is none of this one.
            self.cloud = name if self.name() == name else None

    def train(self, to, algorithm, **parameters):
        self.model = f"{algorithm}_{os.getpid()}_{self.rounds}"
        self.done(self.call("POST", f"/3/ModelBuilders/{algorithm}", training_frame=self.frame,
                            response_column="response", model_id=self.model, **parameters)["job"])
        output = self.call("GET", f"/3/Models/{self.model}")["models"][0]["output"]
        to.check(f"{algorithm}: MSE", output["training_metrics"]["MSE"])
        if algorithm == "glm":
            to.check("glm: coefficients", output["coefficients_table"]["data"][1])
        scored = f"p_{self.model}"
        self.call("POST", f"/3/Predictions/models/{self.model}/frames/{self.frame}", predictions_frame=scored)
        to.check(f"{algorithm}: predictions", self.rapids(f"(nrow {scored})"))
        to.check(f"{algorithm}: sum of predictions", self.rapids(f"(sumNA {scored})"))
        self.call("DELETE", f"/3/Frames/{scored}")

    def round(self, to):
        self.rounds += 1
        self.what_was(to)
        self.train(to, "gbm", ntrees=8, max_depth=4, seed=1)
        self.train(to, "glm", family="gaussian", seed=1)
        to.clouds.append(self.name())


# --- one that searches grids: an ordinary program with the h2o package, but more impatient ------------


class Searcher:
    """Waits as long as the package does, which is for ever where a search is gone; the driver ends it then."""

    def __init__(self, port):
        import h2o
        import h2o.job
        from h2o.estimators import H2OGradientBoostingEstimator
        from h2o.exceptions import H2OConnectionError, H2OResponseError, H2OServerError
        from h2o.grid import H2OGridSearch
        self.h2o, self.gbm, self.grid = h2o, H2OGradientBoostingEstimator, H2OGridSearch
        self.errors = (H2OConnectionError, H2OResponseError, H2OServerError, OSError)
        # 30 times 10 s (3 s for what cannot be recovered) become 30 times 2 s.
        h2o.job.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 2)))
        self.url = f"http://127.0.0.1:{port}"
        self.rounds = 0

    def name(self):
        return self.h2o.api("GET /3/Cloud?skip_ticks=true")["cloud_name"]

    def round(self, to):
        try:
            self.search(to)
        except self.errors as e:
            raise Outage(f"{type(e).__name__} {str(e)[:400]}") from None

    def search(self, to):
        self.rounds += 1
        h2o, me = self.h2o, f"{os.getpid()}_{self.rounds}"
        h2o.connect(url=self.url, verbose=False)
        h2o.no_progress()
        to.clouds.append(self.name())
        frame = h2o.create_frame(frame_id=f"grid_frame_{me}", rows=4000, cols=5, seed=2, seed_for_column_types=2,
                                 real_fraction=1, integer_fraction=0, categorical_fraction=0, binary_fraction=0,
                                 time_fraction=0, string_fraction=0, missing_fraction=0, has_response=True,
                                 response_factors=1)
        grid = self.grid(self.gbm(seed=1), grid_id=f"grid_{me}", hyper_params=GRID)
        grid.train(y="response", training_frame=frame)
        to.check("models", len(grid.model_ids))
        metrics = sorted((m.actual_params["ntrees"], m.actual_params["max_depth"], m.actual_params["learn_rate"],
                          m.mse()) for m in grid.models)
        to.check("grid", [list(m) for m in metrics])
        best = min(grid.models, key=lambda m: m.mse())
        predictions = best.predict(frame)
        to.check("grid: sum of predictions", predictions.sum())
        to.clouds.append(self.name())
        for key in (predictions.frame_id, grid.grid_id, frame.frame_id):
            h2o.remove(key)


# ------------------------------------------------------------------------------------------------------


def one_round(worker, expected):
    to = Round(expected)
    try:
        worker.round(to)
    except Outage as e:
        to.error = str(e)
    return to


def quiet_answers(worker, path):
    """What is right: two rounds that say the same."""
    first = one_round(worker, {})
    second = one_round(worker, first.told)
    for to in (first, second):
        if to.error or to.wrong:
            sys.exit(f"a quiet cloud's answers are not to be had: {to.error or to.wrong}")
    path.write_text(json.dumps(first.told))
    return first.told


def main():
    what, port, path = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    worker = Trainer(port) if what == "train" else Searcher(port)
    expected = json.loads(path.read_text()) if path.exists() else quiet_answers(worker, path)
    print("READY", flush=True)
    while not select.select([sys.stdin], [], [], 0.3)[0]:
        print("ROUND " + one_round(worker, expected).json(), flush=True)


if __name__ == "__main__":
    main()
