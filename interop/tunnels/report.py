"""Prints the medians of what tunbench has measured: report.py JSON RESULTS...; each file is named after its link."""

import json
import pathlib
import statistics
import sys

COLUMNS = [
    ("up_1_MiBps", "up 1", "MiB/s", 1),
    ("down_1_MiBps", "down 1", "MiB/s", 1),
    ("up_n_MiBps", "up 16", "MiB/s", 1),
    ("down_n_MiBps", "down 16", "MiB/s", 1),
    ("rtt_p50_us", "rtt p50", "us", 1),
    ("rtt_p99_us", "rtt p99", "us", 1),
    ("dials_per_s", "dials", "/s", 1),
    ("bytes_per_idle_conn", "idle", "KiB", 1024),
]


def one_of(key, values):
    """The median; of memory the most, as later rounds use what earlier ones have given back."""
    known = [value for value in values if value is not None]
    choose = max if key == "bytes_per_idle_conn" else statistics.median
    return choose(known) if known else None


def cell(value, unit):
    if value is None:
        return "-"
    return f"{value / unit:.1f}" if value / unit < 20 else f"{value / unit:.0f}"


def medians_of(rounds):
    names = list(dict.fromkeys(row["name"] for row in rounds))
    return [
        {"name": name} | {key: one_of(key, (row[key] for row in rounds if row["name"] == name)) for key, *_ in COLUMNS}
        for name in names
    ]


def show(link, rounds, medians):
    count = len(rounds) // max(len(medians), 1)
    print(f"{link}: medians of {count} rounds; up is into the entry")
    print(f"{'':14}" + "".join(f"{title:>10}" for _, title, *_ in COLUMNS))
    print(f"{'':14}" + "".join(f"{unit:>10}" for _, _, unit, _ in COLUMNS))
    for row in medians:
        print(f"{row['name']:14}" + "".join(f"{cell(row[key], unit):>10}" for key, _, _, unit in COLUMNS))
    print()


def main():
    links = {}
    for path in sys.argv[2:]:
        rounds = [json.loads(line) for line in open(path, encoding="utf-8")]
        link = pathlib.Path(path).stem
        links[link] = {"medians": medians_of(rounds), "rounds": rounds}
        show(link, rounds, links[link]["medians"])
    if sys.argv[1]:
        with open(sys.argv[1], "w", encoding="utf-8") as out:
            json.dump(links, out, indent=1)


main()
