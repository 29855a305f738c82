"""How fast are hnswlib and faiss on the vectors of `gavel bench ann`, at the recall it reaches?

One thread, CPU time, one query a call, as a server asks; M 16 and efConstruction 128 as in our graphs unless told
otherwise. Takes the same files, prints the same curve, and with `--ours`, the JSON of `gavel bench ann --json`, the
speeds at equal recall beside each other, between two points along a straight line in the logarithm of the speed.
"""

import argparse
import gzip
import json
import math
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import faiss  # noqa: E402
import hnswlib  # noqa: E402
import numpy  # noqa: E402

RESULTS = 10
TARGETS = (0.9, 0.95, 0.97, 0.99, 0.995, 0.999)


def load(name):
    """.npy or IDX of unsigned bytes, also .gz; FILE@FROM:TO takes a range of rows."""
    begin, end = None, None
    if "@" in name:
        name, span = name.rsplit("@", 1)
        begin, end = (int(part) if part else None for part in span.split(":"))
    with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
        if file.peek(6)[:6] == b"\x93NUMPY":
            rows = numpy.load(file, allow_pickle=False)
        else:
            data = file.read()
            shape = numpy.frombuffer(data, ">u4", data[3], 4).astype(int)
            rows = numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * data[3]).reshape(shape)
    rows = rows[begin:end]
    return rows.reshape(len(rows), -1)


class Faiss:
    name = "faiss HNSW f32"

    def __init__(self, base, metric, links, construction):
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexHNSWFlat(base.shape[1], links, kind)
        self.index.hnsw.efConstruction = construction
        self.index.add(base)

    def save(self, path):
        faiss.write_index(self.index, path)

    @classmethod
    def load(cls, path, base, metric):
        kept = cls.__new__(cls)
        kept.index = faiss.read_index(path)
        return kept

    def list(self, ef):
        self.index.hnsw.efSearch = ef

    def search(self, queries):
        return self.index.search(queries, RESULTS)[1]


class FaissBytes(Faiss):
    name = "faiss HNSW SQ8"

    def __init__(self, base, metric, links, construction):
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexHNSWSQ(base.shape[1], faiss.ScalarQuantizer.QT_8bit, links, kind)
        self.index.hnsw.efConstruction = construction
        self.index.train(base)
        self.index.add(base)


class Hnswlib:
    name = "hnswlib f32"

    def __init__(self, base, metric, links, construction):
        self.index = hnswlib.Index(space="l2" if metric == "l2" else "ip", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=links, ef_construction=construction)
        self.index.set_num_threads(1)
        self.index.add_items(base, num_threads=1)

    def save(self, path):
        self.index.save_index(path)

    @classmethod
    def load(cls, path, base, metric):
        kept = cls.__new__(cls)
        kept.index = hnswlib.Index(space="l2" if metric == "l2" else "ip", dim=base.shape[1])
        kept.index.load_index(path, max_elements=len(base))
        kept.index.set_num_threads(1)
        return kept

    def list(self, ef):
        self.index.set_ef(ef)

    def search(self, queries):
        return self.index.knn_query(queries, k=RESULTS, num_threads=1)[0]


def made(kind, base, arguments):
    """An index and the CPU seconds of its build; from the folder of `--keep` when it is there."""
    path = arguments.keep and os.path.join(arguments.keep, kind.__name__)
    if path and os.path.exists(path + ".seconds"):
        with open(path + ".seconds") as file:
            return kind.load(path, base, arguments.metric), float(file.read())
    start = time.process_time()
    index = kind(base, arguments.metric, arguments.links, arguments.construction)
    built = time.process_time() - start
    if path:
        os.makedirs(arguments.keep, exist_ok=True)
        index.save(path)
        with open(path + ".seconds", "w") as file:
            file.write(str(built))
    return index, built


def curve(index, queries, floors, similarity, lists, seconds):
    """Recall and speed by list. All queries go in one call, on one thread: neither Python's cost of a call nor what a
    library sets up for each is theirs to pay."""
    points = []
    for ef in lists:
        index.list(ef)
        hits = sum(int((similarity(n, found) >= floors[n]).sum()) for n, found in enumerate(index.search(queries)))
        best, spent, passes = math.inf, 0.0, 0
        while spent < seconds or passes < 2:
            start = time.process_time()
            index.search(queries)
            took = time.process_time() - start
            best, spent, passes = min(best, took), spent + took, passes + 1
        points.append({"list": ef, "recall": hits / (RESULTS * len(queries)), "qps": len(queries) / best})
        print("{list:>6} | {recall:.4f} | {qps:.0f}".format(**points[-1]), flush=True)
    return points


def at(points, recall):
    """Queries a second at this recall; None where the curve does not reach it."""
    best = None
    points = sorted(points, key=lambda p: p["recall"])
    for low, high in zip(points, points[1:]):
        if low["recall"] <= recall <= high["recall"] and high["recall"] > low["recall"]:
            share = (recall - low["recall"]) / (high["recall"] - low["recall"])
            speed = math.exp(math.log(low["qps"]) * (1 - share) + math.log(high["qps"]) * share)
            best = max(best or 0, speed)
    if best is None and points and points[0]["recall"] >= recall:
        best = points[0]["qps"]
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--metric", required=True, choices=["l2", "cos", "ip"])
    parser.add_argument("--ef", default="10,16,24,32,48,64,96,128,192,256,384,512,1024")
    parser.add_argument("--links", type=int, default=16)
    parser.add_argument("--construction", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="faiss,sq8,hnswlib")
    parser.add_argument("--ours", help="what gavel bench ann --json has written")
    parser.add_argument("--keep", help="folder where indexes are kept, and taken from")
    parser.add_argument("--json")
    arguments = parser.parse_args()

    faiss.omp_set_num_threads(1)
    base = numpy.ascontiguousarray(load(arguments.base), numpy.float32)
    truth = load(arguments.truth)[:, :RESULTS]
    queries = numpy.ascontiguousarray(load(arguments.queries)[: len(truth)], numpy.float32)
    if arguments.metric == "cos":
        base /= numpy.maximum(numpy.linalg.norm(base, axis=1, keepdims=True), 1e-30)
        queries /= numpy.maximum(numpy.linalg.norm(queries, axis=1, keepdims=True), 1e-30)

    def similarity(n, rows):
        rows = base[rows[rows >= 0]].astype(numpy.float64)
        query = queries[n].astype(numpy.float64)
        return -((rows - query) ** 2).sum(1) if arguments.metric == "l2" else rows @ query

    floors = []
    for n in range(len(queries)):
        floor = similarity(n, truth[n]).min()
        floors.append(floor - abs(floor) * 1e-6)

    lists = [int(ef) for ef in arguments.ef.split(",")]
    kinds = {"faiss": Faiss, "sq8": FaissBytes, "hnswlib": Hnswlib}
    report = {}
    for kind in (kinds[word] for word in arguments.only.split(",")):
        index, built = made(kind, base, arguments)
        print(f"\n{kind.name}: built in {built:.1f} CPU s; ef | recall@10 | QPS a core", flush=True)
        points = curve(index, queries, floors, similarity, lists, arguments.seconds)
        report[kind.name] = {"build_s": built, "curve": points}
        del index

    curves = {name: figures["curve"] for name, figures in report.items()}
    if arguments.ours:
        with open(arguments.ours) as file:
            ours = json.load(file)
        curves = {"gavel": ours["curve"], **curves, **{f"usearch {b['format']}": b["curve"] for b in ours["bare"]}}
    print("\nQPS a core at recall | " + " | ".join(curves))
    for recall in TARGETS:
        speeds = [at(points, recall) for points in curves.values()]
        print(f"{recall} | " + " | ".join("-" if speed is None else f"{speed:.0f}" for speed in speeds))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
